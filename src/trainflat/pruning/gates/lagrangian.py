"""A Lagrangian that drives the expected size of a gated structure to a target (Xia, Zhong and Chen, ACL 2022)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.anatomy import Anatomy
from trainflat.core.errors import InputError
from trainflat.pruning.gates.activations import HIDDEN
from trainflat.pruning.gates.functions import HardConcrete, Position, Scores
from trainflat.pruning.gates.pressure import Pressure, Scratch
from trainflat.pruning.structured.counting import count
from trainflat.pruning.structured.kept import Kept


@dataclass(frozen=True)
class UnitCost:
    """Names the values of one sub-layer's units and of the whole sub-layer, and what one unit counts.

    Attributes:
        units: Name of the units' values.
        whole: Name of the sub-layer's value.
        each: Parameters of a unit; where hidden dimensions are gated too, of a unit and one of them.
    """

    units: str
    whole: str
    each: float


class Size(ABC):
    """Measures how much of a structure is gone, in whatever a target is a share of."""

    @abstractmethod
    def sparsity(self, chances: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the expected share that is gone [1], and its derivatives by the chances.

        Args:
            chances: That a value is not 0, by name: of units [n], of sub-layers [1], of hidden dimensions [hidden].
        """

    @abstractmethod
    def gone(self, kept: Kept) -> float:
        """Returns the share that is gone of a model as it would be shrunk."""


class ExpectedSize(Size):
    r"""Computes the expected share of parameters that is gone, from the chances that gates are open.

    Counts as CoFi's code does, in two ways. With P the chances, i over hidden dimensions, j over the heads and k over
    the feed-forward units of each layer, and the cost c of a head or a unit::

        without hidden gates    sum_j P(head j) P(attention) c_head + sum_k P(unit k) P(feed-forward) c_unit
        with them               sum_i P(i) (the same, with costs per hidden dimension)

    Without hidden gates a head counts 4 matrices with biases (196,864 in BERT-base), a unit its row and its column and
    one bias (1,537). With them a head counts the same by the dense width (256.33), a unit 2 entries and no bias (3
    where one half of the units gates the other). Both are divided by all weights and biases of the layers without
    LayerNorms, so that even with all gates open a little counts as gone: 0.05 % of BERT-base.

    Args:
        anatomy: Of the model.
        hidden: Whether hidden dimensions are gated.
    """

    def __init__(self, anatomy: Anatomy, *, hidden: bool) -> None:
        self.anatomy, self.dense = anatomy, count(Kept.all(anatomy), anatomy).cofi_dense
        self.parts: list[UnitCost] = []
        for place, layer in enumerate(anatomy.layers):
            a, f = layer.attention, layer.feed_forward
            if a.heads:
                linears = (*a.query, *a.key, a.value, a.output)
                total = sum(one.outputs * (one.inputs + (one.bias is not None)) for one in linears)
                each = total / a.heads / (anatomy.hidden_size if hidden else 1)
                self.parts.append(UnitCost(f"head {place}", f"attention sub-layer {place}", each))
            if f.output.inputs:
                rows = sum(1 if hidden else one.inputs + (one.bias is not None) for one in f.inputs)
                each = rows + (1 if hidden else anatomy.hidden_size)
                self.parts.append(UnitCost(f"feed-forward unit {place}", f"feed-forward sub-layer {place}", each))

    def sparsity(self, chances: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        width = chances[HIDDEN].sum() if HIDDEN in chances else 1.0
        inner, slopes = torch.zeros(1, dtype=torch.float64), {}
        for part in self.parts:
            units, whole = chances[part.units], chances[part.whole]
            own, scale = units.sum(), -part.each * width / self.dense
            inner = inner.to(whole) + part.each * whole * own
            slopes[part.units] = (scale * whole).expand_as(units)
            slopes[part.whole] = (scale * own).expand_as(whole)
        if HIDDEN in chances:
            slopes[HIDDEN] = (-inner / self.dense).expand_as(chances[HIDDEN])
        return 1 - width * inner / self.dense, slopes

    def gone(self, kept: Kept) -> float:
        """Returns the share of the layers' parameters that a shrunk model would not have, LayerNorms counted."""
        return count(kept, self.anatomy).sparsity


class Lagrangian(Pressure):
    r"""Adds :math:`\lambda_1 (\hat s - t) + \lambda_2 (\hat s - t)^2` to the loss, and lets both multipliers ascend.

    :math:`\hat s` is the expected sparsity and t the target, which rises by schedule. The multipliers begin at 0 and
    are parameters of the optimizer, which maximizes by them; neither has a sign. Adam moves each by about its rate per
    step, whatever the gap; the second only grows, for its gradient is a square.

    The chances are not clamped to [1e-6, 1 - 1e-6] as in CoFi's code, where scores between their bounds never get
    there.

    Args:
        function: From whose scores chances follow.
        target: Sparsity to end with.
        size: Computes the expected sparsity, and what is gone in the end.

    Attributes:
        multipliers: Both, in one parameter [2]; made by :meth:`begin`.
    """

    multipliers: nn.Parameter

    def __init__(self, function: HardConcrete, target: float, size: Size) -> None:
        super().__init__(function)
        self.target: float = target
        self.size, self.wanted = size, 0.0
        self.begin()

    def begin(self, like: Tensor | None = None) -> None:
        self.multipliers = nn.Parameter(torch.zeros(2) if like is None else torch.zeros_like(like).resize_(2).zero_())

    def advance(self, scores: Scores, at: Position, scratch: Scratch) -> None:
        self.wanted = at.scheduled(self.target or 0.0)

    @torch.no_grad()
    def push(self, scores: Mapping[str, nn.Parameter], weight: float, scratch: Scratch) -> None:
        chances = self.chances(scores)
        sparsity, slopes = self.size.sparsity(chances)
        gap = sparsity - self.wanted
        one, two = self.multipliers.double()
        for name, score in scores.items():
            p = chances[name]
            _add(score, weight * (one + 2 * two * gap) * slopes[name] * p * (1 - p))
        _add(self.multipliers, weight * torch.cat([gap, gap.square()]))

    def chances(self, scores: Scores) -> dict[str, Tensor]:
        """Returns the chances that the values are not 0, in float64."""
        return {name: (score.detach().double() - self.function.shift).sigmoid() for name, score in scores.items()}

    def logs(self, scores: Scores, at: Position) -> dict[str, float]:
        """Returns the target of now, the expected sparsity and the multipliers."""
        one, two = self.multipliers.tolist()
        expected = float(self.size.sparsity(self.chances(scores))[0])
        logs = {"sparsity_target": self.wanted, "sparsity_expected": expected}
        return logs | {"multiplier_1": one, "multiplier_2": two}

    def refuse_unreachable(self, sizes: Mapping[str, int], lowest: float) -> None:
        """Raises InputError for a target that is not reached with all scores at their lowest value.

        Args:
            sizes: Number of scores by name.
            lowest: Their bound below.
        """
        scores = {name: torch.full((size,), lowest) for name, size in sizes.items()}
        most = float(self.size.sparsity(self.chances(scores))[0])
        if self.target is not None and self.target > most:
            raise InputError(
                f"target_sparsity {self.target:g} is more than the {most:.4f} that the gates of this model can reach. "
                "Ask for less."
            )

    def state_dict(self) -> dict[str, Tensor]:
        return {"multipliers": self.multipliers.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        with torch.no_grad():
            self.multipliers.copy_(state["multipliers"])


def _add(p: nn.Parameter, grad: Tensor) -> None:
    own = grad.to(p)
    p.grad = own if p.grad is None else p.grad.add_(own)
