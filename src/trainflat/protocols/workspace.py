"""Holds what the stages of a run share; trains their models and ranks weights with it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Settings
from trainflat.evaluation import objective_on
from trainflat.models import Encoder
from trainflat.objective import Objective
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.store import StageStore
from trainflat.pruning import Masks, Pruner, Scope
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.training.fit import fit
from trainflat.training.options import TrainingOptions


@dataclass(frozen=True)
class Workspace:
    """Holds one task, one pre-trained model and the folder of one run.

    Attributes:
        encoder: Tokenizer, and the model that training starts from; it is never trained itself.
        writes: False on all processes of a data-parallel run but the first.
        teacher: Of every training, where the recipe asks for one.
        shared: Run folders, by the name of a stage, that hold the same one.
    """

    encoder: Encoder
    task: Task
    train_split: EncodedSplit
    evaluation: Mapping[str, EncodedSplit]
    options: TrainingOptions
    folder: Path
    seed: int
    writes: bool = True
    progress: Progress = field(default_factory=Progress)
    teacher: nn.Module | None = None
    shared: Mapping[str, Path] = field(default_factory=dict)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Returns the encoder's, which is the same for all stages."""
        return self.encoder.tokenizer

    @property
    def store(self) -> StageStore:
        """Opens the stages in the run's folder."""
        return StageStore(self.folder, self.writes, self.options.quantization, self.shared)

    @property
    def steps(self) -> int:
        """Counts the optimizer steps of one training."""
        return self.options.steps(len(self.train_split))

    def untrained(self) -> PreTrainedModel:
        """Copies the model that training starts from."""
        return copy.deepcopy(self.encoder.model)

    def objective(
        self,
        model: PreTrainedModel,
        purpose: str,
        rows: int,
        batch_size: int = 32,
        masks: Masks | None = None,
    ) -> Objective:
        """Makes the loss on some training rows, which the purpose draws: the same ones whenever it is asked for."""
        return objective_on(
            model,
            self.train_split,
            self.tokenizer,
            rows=rows,
            batch_size=batch_size,
            seed=derive_seed(self.seed, purpose),
            masks=masks,
            progress=self.progress,
        )


def train(
    workspace: Workspace,
    stage: Planned,
    model: PreTrainedModel,
    *,
    masks: Masks | None = None,
    snapshot: int | None = None,
    **features: Any,
) -> Produced:
    """Trains ``model`` in place, from where it stands, with the features that the recipe and the protocol give.

    The stage's name decides the seed and the folder of the checkpoints: a training that was killed goes on from these.
    ``snapshot`` is the step whose weights are kept in the store; ``features`` are settings by a feature's key.
    """
    store, distillation = workspace.store, workspace.options.distillation
    features["masks"] = masks
    if snapshot is not None:
        features["snapshot"] = (snapshot, store.snapshot_folder)
    if workspace.teacher is not None and distillation is not None:  # loaded once, for all trainings
        features["distillation"] = distillation.model_copy(update={"teacher": workspace.teacher})
    if distillation is None:  # of a stage that becomes the teacher of later ones
        features["layerwise"] = None
    if masks is not None:
        masks.apply_(model)
    fitted = fit(
        model,
        workspace.tokenizer,
        workspace.task,
        workspace.train_split,
        workspace.evaluation,
        options=workspace.options,
        folder=store.checkpoints(stage.name),
        seed=derive_seed(workspace.seed, stage.name),
        features=features,
        progress=workspace.progress,
    )
    quantizer = fitted.products.get("quantization")
    return Produced(stage, model, fitted.masks, fitted.training, fitted.seconds, quantizer, products=fitted.products)


def build_pruner(  # noqa: PLR0917
    workspace: Workspace,
    model: PreTrainedModel,
    settings: Settings,
    sparsity: float,
    scope: Scope,
    masks: Masks | None = None,
) -> Pruner:
    """Builds a pruner for a model's weights, with the task's loss that some of them score by."""
    given = {"sparsity": sparsity, "scope": scope, "masks": masks, "seed": workspace.seed}
    objective = partial(workspace.objective, model, "pruning rows")
    made: Pruner = settings.build(model, objective=objective, **given)
    return made
