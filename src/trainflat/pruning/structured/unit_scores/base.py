"""The interface of a score of units, and the passes that several scores share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.progress import Progress
from trainflat.objective.state_guard import preserve_state
from trainflat.pruning.structured.layerwise import Batch, Station, stations
from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.sub_layers import SubLayer, gated, sub_layers

Sums = Callable[[Any, Any, Batch], Iterable[Tensor]]
"""Takes a model, its outputs and the batch; gives scalars that are sums over the batch's rows."""


@dataclass(frozen=True)
class Ranking:
    """Holds in which order a sub-layer's units are dropped, and which loss is predicted for it.

    Attributes:
        order: Numbers of units [units], the first to be dropped first.
        loss: Predicted rise of the loss with the first k of them dropped [units + 1], in float64; never falls.
    """

    order: Tensor
    loss: Tensor

    @classmethod
    def by(cls, scores: Tensor) -> "Ranking":
        """Drops the units with the lowest scores [units] first, ties in index order; the loss is the scores' sum."""
        ordered, order = scores.double().cpu().sort(stable=True)
        return cls(order, torch.cat([ordered.new_zeros(1), ordered.cumsum(0)]))


@dataclass(frozen=True)
class UnitInputs:
    """Everything that a score of units may look at.

    Attributes:
        model: The model that is to be pruned.
        batches: Calibration rows on the model's device: tensors by name; ``labels`` only where a score needs them.
        seed: Of scores that draw.
        progress: Told of the batches and sub-layers that were looked at.
    """

    model: nn.Module
    batches: Sequence[Batch]
    seed: int = 0
    progress: Progress = field(default_factory=Progress)

    def sub_layers(self) -> list[SubLayer]:
        return sub_layers(self.model)

    def stations(self) -> Iterator[Station]:
        """Stops at each sub-layer of the dense model."""
        found = stations(self.model, self.batches)
        return self.progress.each("scoring units by sub-layer", found, len(self.sub_layers()))


class UnitScore(ABC):
    """Predicts what the loss would rise by without some units of a sub-layer. A method writes :meth:`rankings`.

    The predictions of one score must be comparable between sub-layers: the search weighs them against each other.
    """

    labelled: ClassVar[bool] = False
    """Whether the batches must hold the answers."""

    chooses_again: bool = False
    """Whether it has an :meth:`order_again`, for which the layers are run."""

    @abstractmethod
    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        """Returns one ranking for each of the model's sub-layers, in forward order."""

    def order_again(self, sub: SubLayer, matrix: nn.Linear, moments: Moments, drop: int) -> Tensor | None:
        """Chooses a sub-layer's units again once those before it are pruned; None keeps the first choice.

        Args:
            sub: The sub-layer.
            matrix: Its output matrix, still dense.
            moments: Of what the matrix reads and should put out, in the pruned model.
            drop: How many units shall go.
        """
        return None


class RankedOnce(UnitScore):
    """Ranks the units of one model once with another score, for several budgets: most of the time goes into ranking.

    Args:
        score: The other score.
    """

    def __init__(self, score: UnitScore) -> None:
        self.score, self.chooses_again = score, score.chooses_again
        self.found: list[Ranking] | None = None

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        if self.found is None:
            self.found = self.score.rankings(inputs)
        return self.found

    def order_again(self, sub: SubLayer, matrix: nn.Linear, moments: Moments, drop: int) -> Tensor | None:
        return self.score.order_again(sub, matrix, moments, drop)


def gate_gradients(inputs: UnitInputs, sums: Sums) -> Iterator[list[Tensor]]:
    """Yields gradients of gates at 1, per row, which no other row of the batch enters: [rows, units] per sub-layer.

    Args:
        inputs: Model and batches.
        sums: What is differentiated, one after the other.
    """
    subs = inputs.sub_layers()
    with preserve_state(inputs.model, []):
        for batch in inputs.progress.each("gradients of units", inputs.batches, len(inputs.batches)):
            rows = len(next(iter(batch.values())))
            like = next(inputs.model.parameters())
            gates = [like.new_ones(rows, len(sub.units)).requires_grad_() for sub in subs]
            with gated(inputs.model, list(zip(subs, gates, strict=True))):
                outputs = inputs.model(**batch)
            for total in sums(inputs.model, outputs, batch):
                found = torch.autograd.grad(total, gates, retain_graph=True, allow_unused=True, materialize_grads=True)
                yield [gradient.double() for gradient in found]
