"""What the stages of a run share, and the two things that protocols do with it: train a model, rank its weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.files import is_sealed
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Settings
from trainflat.evaluation import objective_on
from trainflat.models import Encoder
from trainflat.objective import Objective
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.store import StageStore
from trainflat.pruning import Masks, Pruner, Scope
from trainflat.quantization import make_quantizer
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.training.fit import fit
from trainflat.training.options import TrainingOptions


@dataclass(frozen=True)
class Workspace:
    """One task, one pre-trained model and the folder of one run.

    Attributes:
        encoder: Tokenizer, and the model that training starts from; it is never trained itself.
        writes: False on all processes of a data-parallel run but the first.
        teacher: Of every training, where the recipe asks for one.
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

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the encoder; the same for all stages."""
        return self.encoder.tokenizer

    @property
    def store(self) -> StageStore:
        """The stages in the run's folder."""
        return StageStore(self.folder, self.writes)

    @property
    def steps(self) -> int:
        """Optimizer steps of one training."""
        return self.options.steps(len(self.train_split))

    def untrained(self) -> PreTrainedModel:
        """Copies the model that training starts from."""
        return copy.deepcopy(self.encoder.model)


def train(
    workspace: Workspace,
    stage: Planned,
    model: PreTrainedModel,
    *,
    masks: Masks | None = None,
    snapshot: int | None = None,
    gate: Mapping[str, Any] | None = None,
    freeze_embeddings: bool = False,
) -> Produced:
    """Recalls a stage that was completed before, else trains ``model`` in place.

    Args:
        workspace: Task, rows and options of the training.
        stage: Gives its name to the folder and to the seed.
        model: Where training starts.
        masks: Hold weights at zero, from the start.
        snapshot: The step whose weights are kept in the store.
        gate: Section of a recipe; prunes while training.
        freeze_embeddings: As in :func:`~trainflat.training.fit.fit`.
    """
    store = workspace.store
    # Without its snapshot, the dense stage is trained again, to the same weights.
    complete = snapshot is None or is_sealed(store.snapshot_folder)
    if complete and (known := store.recall(stage)) is not None:
        return _with_quantizer(known, workspace)
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
        masks=masks,
        teacher=workspace.teacher,
        snapshot=None if snapshot is None else (snapshot, store.snapshot_folder),
        gate=gate,
        freeze_embeddings=freeze_embeddings,
        progress=workspace.progress,
    )
    return Produced(stage, model, fitted.masks, fitted.training, fitted.seconds, fitted.quantizer)


def _with_quantizer(known: Produced, workspace: Workspace) -> Produced:
    if workspace.options.quantization is None:
        return known
    options = dict(workspace.options.quantization)
    quantizer = make_quantizer(options.pop("name"), known.model, **options)
    quantizer.load_state_dict(workspace.store.ranges(known.plan))
    return replace(known, quantizer=quantizer)


def build_pruner(  # noqa: PLR0917
    workspace: Workspace,
    model: PreTrainedModel,
    settings: Settings,
    sparsity: float,
    scope: Scope,
    masks: Masks | None = None,
) -> Pruner:
    """Builds a pruner for a model's weights, with the task's loss that some of them score by."""
    objective = partial(_objective, workspace, model)
    made: Pruner = settings.build(
        model, sparsity=sparsity, scope=scope, masks=masks, seed=workspace.seed, objective=objective
    )
    return made


def _objective(workspace: Workspace, model: PreTrainedModel, rows: int, batch_size: int) -> Objective:
    """The task's loss on some training rows, the same ones whenever it is asked for."""
    return objective_on(
        model,
        workspace.train_split,
        workspace.tokenizer,
        rows=rows,
        batch_size=batch_size,
        seed=derive_seed(workspace.seed, "pruning rows"),
        progress=workspace.progress,
    )
