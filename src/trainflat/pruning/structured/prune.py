"""Prunes heads and feed-forward units of a trained model at once, without training it again."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from trainflat.anatomy import anatomy_of
from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import UnknownName
from trainflat.core.progress import Progress
from trainflat.core.registry import Registry
from trainflat.pruning.structured.budgets import Budget
from trainflat.pruning.structured.kept import Kept
from trainflat.pruning.structured.layerwise import Batch, stations
from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.repairs import REPAIRS, Damage, Repair
from trainflat.pruning.structured.sub_layers import SubLayer, sub_layers
from trainflat.pruning.structured.unit_scores import UNIT_SCORES, Ranking, UnitInputs, UnitScore
from trainflat.pruning.structured.widths import Shape, check_reach, choose_widths

T = TypeVar("T")


@dataclass(frozen=True)
class SubLayerNote:
    """Records what became of one sub-layer.

    Attributes:
        name: Kind and place, such as ``"attention 3"``.
        kept: Units that are left.
        units: Units that there were.
        predicted: Rise of the loss that the score predicted for this width.
        before: Mean squared error per position of the output against its target, the dropped units' columns zeroed and
            nothing mended; None where no layer was run.
        after: The same after the repair.
        repair: Name of the repair that holds; ``"none"`` where the one asked for would have raised the error.
    """

    name: str
    kept: int
    units: int
    predicted: float
    before: float | None
    after: float | None
    repair: str


@dataclass(frozen=True)
class Pruned:
    """Holds a pruned model that is as large as before, and what it takes to shrink it.

    Attributes:
        kept: Which heads and units are left.
        model: A copy of the model, in which the columns that read dropped units are 0 and the others are mended.
        predicted: Rise of the loss that the score predicted, over all sub-layers.
        dense: Cost of the dense model, in the budget's unit.
        cost: Cost of the pruned one; measured, if that is time.
        notes: Of each sub-layer, in forward order.
    """

    kept: Kept
    model: nn.Module
    predicted: float
    dense: float
    cost: float
    notes: tuple[SubLayerNote, ...]


def prune_structure(
    model: nn.Module,
    batches: Sequence[Batch],
    budget: Budget,
    *,
    score: str | UnitScore = "obs",
    repair: str | Repair = "least-squares",
    shape: Shape = "friendly",
    seed: int = 0,
    progress: Progress | None = None,
) -> Pruned:
    """Drops the heads and feed-forward units that a budget has no room for and the predictions can best do without.

    The score ranks the units of each sub-layer and predicts the loss for each width; a search takes the widths with the
    least sum within the budget; then, sub-layer by sub-layer in forward order, units are dropped and the output matrix
    is repaired, on what the layers before have become. Units are chosen by the same seed and rows always alike.

    Args:
        model: A transformers model of a known architecture; it is not changed.
        batches: A few hundred rows: tensors by name, on the model's device, ``attention_mask`` where rows are padded.
            ``labels`` are only looked at by the scores ``taylor`` and ``fisher``.
        budget: What may be left.
        score: A name of ``UNIT_SCORES``, or a score with options; a ``RankedOnce`` for several budgets.
        repair: A name of ``REPAIRS``, or a repair with options.
        shape: Which widths are tried.
        seed: Of scores that draw.
        progress: Told of the sub-layers that are done.

    Raises:
        InputError: the budget is out of reach (names the smallest that is not), there are no rows or no labels where
            they are needed, or the architecture or its task head is not known.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from trainflat.pruning.structured.budgets import MultiplyAdds
        >>> sizes = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64, vocab_size=9)
        >>> model = BertForSequenceClassification(BertConfig(**sizes))
        >>> pruned = prune_structure(model, [{"input_ids": torch.arange(8).view(2, 4)}], MultiplyAdds(0.9, length=4))
        >>> [(note.name, note.units) for note in pruned.notes]
        [('attention 0', 2), ('feed-forward 0', 64)]
    """
    if shape not in get_args(Shape):
        raise UnknownName("shape", shape, get_args(Shape))
    chosen, mending = _built(score, UNIT_SCORES), _built(repair, REPAIRS)
    pruned, shown = copy.deepcopy(unwrapped(model)), progress or Progress()
    check_reach(pruned, budget)
    subs = sub_layers(pruned)
    rankings = chosen.rankings(UnitInputs(pruned, batches, seed, shown))
    widths, cost = choose_widths(pruned, budget, rankings, shape, shown)
    dropping = _Dropping(pruned, chosen, mending)
    plan = [_Plan(*one) for one in zip(subs, rankings, widths, strict=True)]
    notes = tuple(shown.each("repairing sub-layers", dropping.all(plan, batches), len(plan)))
    gone = [plan.sub.units[int(i)] for plan, order in zip(plan, dropping.orders, strict=True) for i in order]
    return Pruned(
        Kept.all(anatomy_of(pruned)).without(gone),
        pruned,
        sum(note.predicted for note in notes),
        budget.prices(model, subs).dense,
        cost,
        notes,
    )


def _built(given: str | T, table: Registry[T]) -> T:
    return table.build(given) if isinstance(given, str) else given


@dataclass(frozen=True)
class _Plan:
    sub: SubLayer
    ranking: Ranking
    width: int

    @property
    def drop(self) -> int:
        return len(self.sub.units) - self.width


class _Dropping:
    """Drops the units of one sub-layer after the other and repairs what reads them.

    Attributes:
        orders: The units that are gone, by sub-layer.
    """

    def __init__(self, model: nn.Module, score: UnitScore, repair: Repair) -> None:
        self.model, self.score, self.repair = model, score, repair
        self.orders: list[Tensor] = []

    def all(self, plans: Sequence[_Plan], batches: Sequence[Batch]) -> Iterable[SubLayerNote]:
        if not self.score.chooses_again and not self.repair.looks:
            for plan in plans:
                yield self._one(plan, None)
            return
        for plan, station in zip(plans, stations(self.model, batches), strict=True):
            # Whole and after whole ones, a sub-layer has nothing to mend.
            whole = not plan.drop and not any(map(len, self.orders))
            yield self._one(plan, None if whole else Moments.of(station.seen()))

    def _one(self, plan: _Plan, moments: Moments | None) -> SubLayerNote:
        matrix, sub = plan.sub.matrix(self.model), plan.sub
        order = None if moments is None else self.score.order_again(sub, matrix, moments, plan.drop)
        gone = (plan.ranking.order if order is None else order)[: plan.drop]
        self.orders.append(gone)
        kept = torch.ones(len(sub.units), dtype=torch.bool)
        kept[gone] = False
        errors, name = self._mend(matrix, kept.repeat_interleave(sub.width), sub.width, moments)
        predicted = float(plan.ranking.loss[plan.drop])
        return SubLayerNote(sub.name, plan.width, len(sub.units), predicted, *errors, name)

    def _mend(
        self, matrix: nn.Linear, kept: Tensor, width: int, moments: Moments | None
    ) -> tuple[tuple[float | None, float | None], str]:
        """Writes the matrix that is left; returns its errors before and after the repair, and the repair's name."""
        weight, bias = _copied(matrix.weight), None if matrix.bias is None else _copied(matrix.bias)
        if moments is None:
            _write(matrix, weight * kept, bias)
            return (None, None), "none"
        masked, before = weight * kept, moments.error(weight * kept, bias)
        mended = self.repair.repaired(Damage(weight, bias, kept, width, moments))
        _write(matrix, *mended)
        # As they are now, rounded to the model's type.
        after = moments.error(_copied(matrix.weight), None if bias is None else _copied(matrix.bias))
        if after <= before:
            return (before, after), _name(self.repair)
        _write(matrix, masked, bias)
        return (before, before), "none"


def _name(repair: Repair) -> str:
    return next((name for name, kind in REPAIRS.items() if kind is type(repair)), type(repair).__name__)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float64, copy=True)


@torch.no_grad()
def _write(matrix: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    matrix.weight.copy_(weight)
    if bias is not None:
        matrix.bias.copy_(bias)
