"""Compute-optimal transfer (Caccia et al. 2023, arXiv:2304.13164): prunes before fine-tuning, without any data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from torch import nn
from transformers import PreTrainedModel

from trainflat.anatomy import anatomy_of
from trainflat.core.settings import Word, checked
from trainflat.evaluation.structure import describe_structure
from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.workspace import Workspace, train
from trainflat.pruning.structured import UNIT_SCORES, Kept, shrink
from trainflat.pruning.structured.unit_scores import UnitInputs

_BLIND = ("magnitude", "random")  # the scores that look at no data


class Transfer(Protocol):
    """Makes the pre-trained model smaller at several sizes, and fine-tunes each.

    A smaller model learns less from a row, but a row costs less: for a given training compute the best size may not be
    the whole one. Every layer loses the same share of its heads and of its feed-forward units; the hidden size stays,
    as the paper keeps the size of the representation. All sizes start with the same head.

    The paper prunes convolutional filters of a ResNet-50 by magnitude. Departs from it: a unit of a transformer is a
    head or a feed-forward unit, whose magnitude is that of its columns in the matrix that reads it.

    Args:
        sparsities: Shares of each layer's heads and units to drop before training, ascending; the whole model is
            always trained too.
        score: Which units go first: ``magnitude``, or ``random`` as a control.
    """

    unstructured = False

    @checked
    def __init__(
        self,
        sparsities: Sequence[float] = (0.25, 0.5, 0.75),
        score: Annotated[str, Word(_BLIND)] = "magnitude",
    ) -> None:
        self.sparsities, self.score = check_sparsities(sparsities), score

    def plan(self) -> list[Planned]:
        """Lists one training per size, the whole model first."""
        return [Planned(stage_name(s), s, trained=True) for s in (0.0, *self.sparsities)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the model's heads and units are known."""
        if model is not None:
            anatomy_of(model)

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Fine-tunes each size from its own start."""
        for stage in self.plan():
            yield workspace.store.recall(stage) or self._trained(workspace, stage)

    def _trained(self, workspace: Workspace, stage: Planned) -> Produced:
        whole = workspace.untrained()
        if stage.sparsity == 0:
            return train(workspace, stage, whole)
        kept = self.kept(whole, stage.sparsity, workspace.seed)
        small: PreTrainedModel = shrink(whole, kept)
        structure = describe_structure(whole, small, kept, self.score, "none")
        return replace(train(workspace, stage, small), structure=structure)

    def kept(self, model: nn.Module, sparsity: float, seed: int) -> Kept:
        """Chooses what is left of a model; every sub-layer keeps at least one unit."""
        inputs = UnitInputs(model, (), seed)
        rankings = UNIT_SCORES.build(self.score).rankings(inputs)
        gone = [
            sub.units[i]
            for sub, ranking in zip(inputs.sub_layers(), rankings, strict=True)
            for i in ranking.order[: min(round(sparsity * len(sub.units)), len(sub.units) - 1)].tolist()
        ]
        return Kept.all(anatomy_of(model)).without(gone)
