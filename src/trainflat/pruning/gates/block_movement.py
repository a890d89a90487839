"""Block movement pruning (Lagunas, Charlaix, Sanh and Rush, EMNLP 2021, arXiv:2109.04838)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, get_args

from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.settings import Check, Word
from trainflat.pruning.gates.block_units import FeedForwardUnit, Groups, block_units, entries_of
from trainflat.pruning.gates.functions import FlooredThreshold, Position
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions
from trainflat.pruning.gates.pressure import Lambda, Target, check_reachable, one_of_both, penalty_or_target
from trainflat.pruning.gates.selection import dropped_share, floor_of, total_size
from trainflat.pruning.gates.soft_movement import ThresholdOption
from trainflat.pruning.gates.units import Unit
from trainflat.pruning.options import NON_NEGATIVE, TrueOrFalse

Moment = Literal["final", "now"]


class _Size(Check):
    def read(self, name: str, value: Any) -> int | tuple[int, int]:
        sides = value if isinstance(value, list | tuple) else (value, value)
        if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
            raise InputError(f"{name} is a number of rows and columns, such as 32, or both: [32, 16]; got {value!r}.")
        size: int | tuple[int, int] = value if isinstance(value, int) else (sides[0], sides[1])
        return size

    def dump(self, value: int | tuple[int, int]) -> Any:
        return value if isinstance(value, int) else list(value)


class BlockMovement(MaskOptions, LearnedMask):
    r"""Learns by movement which blocks of the attention's matrices and which feed-forward units stay.

    The mask of a unit is ``sigmoid(S) > tau``, straight through, with scores S that start at 0; of each parameter S of
    n scores the ``int(0.005 n) + 1`` highest stay in any case. tau rises from 0 to ``threshold`` by the schedule, and
    lambda beside it to ``penalty``. The penalty on the scores, of A matrices in attentions and F of feed-forward ones::

        lambda / 2 * (attention_weight / A * sum of mean sigmoid(S) + feed_forward_weight / F * sum of mean sigmoid(S))

    Units: a block of query, key and value matrices, of the output matrix with its sides exchanged; with
    ``feed_forward: dimension``, the paper's *hybrid*, a row of the first and the column of the second feed-forward
    matrix together. An entry of a bias stays where anything of its row does. Gradients reach scores through matrices
    alone. sigmoid(0) = 0.5, so nothing goes before scores have fallen to -2.197: 220 steps of Adam at 0.01.

    When training ends the model is dense with zeros in it, and ``shrink(model, gate.kept())`` is the smaller one that
    computes the same: without units of which nothing is left, and without heads whose values nobody reads. A head
    whose queries or keys are all gone attends to all positions alike and stays (the published code drops it, which
    changes the model). Blocks that are zero inside a matrix that stays make nothing faster; the paper's *filled*
    models give them back (:func:`~trainflat.pruning.structured.fill_zeros`) and are trained again.

    Departs in that a block at the edge of a matrix may be smaller, in the order of equal scores under the floor, and in
    that queries, keys and values of a fused matrix (ModernBERT) are one matrix. Of a model of unknown architecture all
    prunable matrices are cut into blocks, and ``kept()`` is refused.

    Args:
        model: Whose weights are masked: the matrices of its layers. The pooler is not, as published.
        penalty: lambda in the end; published: 2.5 to 40; None is 10 where there is no target.
        target_sparsity: Share of the layers' weights to drop in the end: tau is then there from the start and lambda is
            tuned, see :class:`~trainflat.pruning.gates.pressure.Controller`. None leaves lambda as it is.
        threshold: tau in the end, in (0, 0.5).
        block: Rows and columns of a block: one number, or both.
        feed_forward: Unit of the feed-forward matrices: a ``dimension``, or ``block`` as in attentions.
        attention_weight: Of attentions in the penalty; published 1.
        feed_forward_weight: Of the others; published: 0.25 to 2.
        biases: Whether entries of biases follow their rows. If not, a row that is gone leaves a constant, which is
            moved into the next bias when training ends (:func:`~trainflat.pruning.structured.fold_constants`).
        evaluate: Whether evaluations see the ``final`` threshold from the start, as published, or the one of ``now``.
        schedule: When tau and lambda rise, or with a target, when the sparsity does. Published: cubic, after a warm-up
            of W steps, and its end held for 4 W (MNLI) or 10 W (SQuAD).
    """

    whole_units: ClassVar[bool] = True
    published: ClassVar[float] = 10.0

    penalty: Lambda = None
    target_sparsity: Target = None
    threshold: ThresholdOption = 0.1
    block: Annotated[Any, _Size()] = 32
    feed_forward: Annotated[FeedForwardUnit, Word(get_args(FeedForwardUnit))] = "dimension"
    attention_weight: Annotated[float, NON_NEGATIVE] = 1.0
    feed_forward_weight: Annotated[float, NON_NEGATIVE] = 1.0
    biases: TrueOrFalse = True
    evaluate: Annotated[Moment, Word(get_args(Moment))] = "final"
    unit: Unit = "block"  # no option: `block` and `feed_forward` say it

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        parts = _parts(self, model)
        weights = (self.attention_weight, self.feed_forward_weight)
        shares = {key: weight / (2 * len(part)) for weight, part in zip(weights, parts, strict=True) for key in part}
        groups = {**parts[0], **parts[1]}
        self._entries = {key: entries_of(group) for key, group in groups.items()}
        function = FlooredThreshold(self.threshold, rises=self.target_sparsity is None)
        pressure = penalty_or_target(function, self.penalty, self.target_sparsity, shares, self._entries)
        LearnedMask.__init__(self, model, function, pressure, **self.for_mask() | {"units": groups})

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        """Decides which of ``penalty`` and ``target_sparsity`` holds."""
        return one_of_both(options["penalty"], options["target_sparsity"], cls.published)

    @property
    def evaluated_at(self) -> Position:
        return replace(self.at, share=1.0) if self.evaluate == "final" else self.at

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        self.check_units(self, self.model)

    @classmethod
    def check_units(cls, options: Any, model: nn.Module) -> None:
        """Raises InputError for a target that what stays in any case is too much for; blocks fit any model."""
        entries = {key: entries_of(group) for part in _parts(options, model) for key, group in part.items()}
        least = sum(float(one.flatten().sort().values[: floor_of(one.numel())].sum()) for one in entries.values())
        check_reachable(options.target_sparsity or 0.0, least / total_size(entries))

    def logs(self) -> dict[str, float]:
        return super().logs() | {"sparsity": dropped_share(self.pressure.kept(self.scores, self.at), self._entries)}


def _parts(options: Any, model: nn.Module) -> tuple[Groups, Groups]:
    size = (options.block, options.block) if isinstance(options.block, int) else options.block
    return block_units(model, size, options.feed_forward, options.biases)
