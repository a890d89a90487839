"""Learned masks: units × gate function × pressure."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from trainflat.anatomy import FAMILIES, model_type
from trainflat.anatomy.params import named_weights, prunable
from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.schedules import ScheduleOption
from trainflat.core.settings import Word
from trainflat.pruning.gates.base import Gate, final_sparsity
from trainflat.pruning.gates.functions import GateFunction, Position
from trainflat.pruning.gates.pressure import Pressure
from trainflat.pruning.gates.swap import WeightSwap
from trainflat.pruning.gates.units import MaskGroup, Spread, Unit, expanded, matrix_units
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import NON_NEGATIVE, Perturb
from trainflat.pruning.structured.constants import fold_constants, units_left
from trainflat.pruning.structured.kept import Kept

UNIT = Word(get_args(Unit))
UnitOption = Annotated[Unit, UNIT]
ScoreRate = Annotated[float, NON_NEGATIVE]
PERTURB = Word((None, *get_args(Perturb)))
PerturbOption = Annotated[Perturb | None, PERTURB]


class MaskOptions(Configurable):
    """Declares the options that all learned masks of recipes share; see :class:`LearnedMask`."""

    schedule: ScheduleOption = "cubic"
    unit: UnitOption = "weight"
    score_lr: ScoreRate = 1e-2
    perturb: PerturbOption = None

    def for_mask(self) -> dict[str, Any]:
        """Returns them as arguments of :class:`LearnedMask`."""
        return {"units": self.unit, "schedule": self.schedule, "score_lr": self.score_lr, "perturb": self.perturb}


class LearnedMask(Gate):
    r"""Has the model compute with ``W * m(S)``, and learns the scores S beside the weights W.

    Before the first forward pass of a step what the model computes with is written over the weights, which are kept.
    After the last backward pass they are put back, bit for bit, and the gradient G of what was computed with, summed
    over the step and over processes, becomes in closed form::

        dL/dW = G * m(S)                                        so a pruned weight rests
        dL/dS = sum over the unit's entries of (G * W) * m'(S)  also of pruned ones, so a unit can come back

    A weight that is in several units is multiplied by all of their values; then each of the sums has the other values
    as factors. No module is patched and nothing is added to autograd's graph, so accumulation, data parallel, autocast,
    ``torch.compile`` and gradient checkpointing are as without a mask. A flat optimizer sees weights and gradients only
    between passes: it perturbs the weights behind the mask, and the second pass computes with the mask of these, as
    autograd through the mask would.

    Departs from the code of Sanh et al. (2020), in whose frame the packaged methods are, in that the pooler is masked
    too, where the model has one; in that evaluation sees the sparsity of its step, not the final one throughout; and in
    that schedules count the first step as 0, there as 1.

    Args:
        model: Whose weights are masked.
        function: From scores to mask values: :class:`TopK`, :class:`Threshold`, :class:`HardConcrete`.
        pressure: What drives the sparsity; None is nothing but the function.
        units: What one score is for: a ``"weight"``, a ``"row"`` or ``"column"`` of each prunable matrix, or a
            ``"block"`` of 32 by 32 (Lagunas et al. 2021, arXiv:2109.04838); or groups of units over any of the model's
            tensors, such as :func:`~trainflat.pruning.gates.units.structure_units` makes.
        schedule: See :class:`~trainflat.pruning.gates.base.Gate`.
        score_lr: Learning rate of the scores; it follows the schedule of the other rates. Scores do not decay, as in
            the published code, and no ``l1`` pulls them: they are no weights.
        perturb: What an optimizer like SAM perturbs: ``"weights"``, all parameters of the model and no scores;
            ``"scores"``, nothing else; ``"both"``, in one ball with a joint norm; ``"none"``, which costs a second pass
            like the others and steps like the base optimizer. The perturbation e_W is made of ``G * m(S)``, e_S of
            ``dL/dS``. The second pass computes with ``(W + e_W) * m(S + e_S)``, its gradients are pulled back there
            (``dL/dS = (G * (W + e_W)) * m'(S + e_S)``), and what was drawn or chosen is that of the first pass. By
            default ``"weights"`` where the optimizer perturbs.
    """

    learns: ClassVar[bool] = True
    needs_weights: bool = True

    whole_units: ClassVar[bool] = False
    """Whether units are to be taken out of the model: biases go with them, and masks are of matrices alone."""

    ranked_at_once: ClassVar[bool] = True
    """Whether a schedule that begins with its last value would drop units before scores differ."""

    def __init__(
        self,
        model: nn.Module,
        function: GateFunction,
        pressure: Pressure | None = None,
        *,
        units: Unit | Mapping[str, MaskGroup] = "weight",
        schedule: ScheduleOption = "cubic",
        score_lr: float = 1e-2,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(model, schedule)
        self.function, self.pressure = function, pressure or Pressure(function)
        self.units = units if isinstance(units, Mapping) else UNIT.read("unit", units)
        if isinstance(self.units, Mapping):
            self.weights = _touched(self.model, self.units)
        self.score_lr, self.perturb = NON_NEGATIVE.read("score_lr", score_lr), PERTURB.read("perturb", perturb)

    @property
    def at(self) -> Position:
        """Returns the position in the training."""
        return Position(self.step, self.schedule.share(self.step, self.total_steps), self.seed)

    @property
    def evaluated_at(self) -> Position:
        """Returns the position whose masks evaluations see, and training ends with."""
        return self.at

    # A run

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return self.pressure.scheduled_quantity

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        self._groups()

    @classmethod
    def check_model(cls, options: Any, model: nn.Module) -> None:
        super().check_model(options, model)
        cls.check_units(options, model)

    @classmethod
    def check_units(cls, options: Any, model: nn.Module) -> None:
        """Raises InputError for a model whose weights do not have the units of these settings."""
        matrix_units(prunable(model), options.unit)

    @classmethod
    def check_length(cls, options: Any, total_steps: int) -> None:
        super().check_length(options, total_steps)
        target = options.pressure.target if isinstance(options, LearnedMask) else final_sparsity(options)
        if target and cls.ranked_at_once and options.schedule.share(0, total_steps) > 0:
            raise InputError(
                f"the schedule wants sparsity {target:g} before the first step, and all scores begin alike. Choose "
                "cubic, or give it a start of at least 1 step."
            )

    def prepare(self) -> None:
        if self.pressure.target is not None:
            self.refuse_denser_than(self.pressure.target)
        groups = self._groups()
        self._spreads: dict[str, list[tuple[str, Spread]]] = {name: [] for name in self.weights}
        for key, group in groups.items():
            for name, spreads in group.members.items():
                self._spreads[name] += [(key, spread) for spread in spreads]
        self.scores = {key: nn.Parameter(self._first(group)) for key, group in groups.items()}
        self.swap, self._applied = WeightSwap(self.weights), False
        self._earlier: dict[nn.Parameter, Tensor] = {}
        self.pressure.begin()

    def advance(self, step: int) -> None:
        self.step = step
        self.function.refresh(self.scores, self.at)
        self.pressure.advance(self.scores, self.at, self._scratch)

    @property
    def settled(self) -> bool:
        return super().settled and self.pressure.arrived(self.scores, self.at)

    def masks(self) -> Masks:
        return Masks(self._masks(lambda weight: not self.whole_units or weight.dim() > 1))

    def kept(self) -> Kept:
        """Returns the units that are left where the masks empty others; of heads, those whose values are read.

        After :meth:`finish` of a gate of whole units ``shrink(model, gate.kept())`` computes what the model does.

        Raises:
            InputError: no anatomy is known of the model's architecture.
        """
        with self.applied():
            return units_left(self.model)

    def finish(self) -> Masks | None:
        masks = super().finish()
        if self.whole_units and model_type(self.model) in FAMILIES:
            fold_constants(self.model)
        return masks

    def fold(self) -> None:
        if self.whole_units:
            for name, mask in self._masks(lambda weight: weight.dim() == 1).items():
                self.weights[name].mul_(mask)
        final = {key: self.function.final(score) for key, score in self.scores.items()}
        for name, weight in self.weights.items():
            for key, spread in self._spreads[name]:
                values = final[key]
                if values is not None:
                    weight.view(spread.shape).mul_(spread.spread(values))

    def logs(self) -> dict[str, float]:
        return self.pressure.logs(self.scores, self.at)

    def score_group(self) -> dict[str, Any]:
        perturbed = {} if self.perturb in ("scores", "both") else {"rho": 0.0}
        return {"lr": self.score_lr, "weight_decay": 0.0, **perturbed}

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | self.function.state_dict() | self.pressure.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        self.function.load_state_dict(state, self.scores)
        self.pressure.load_state_dict(state, self.scores)

    # A step

    @torch.no_grad()
    def open(self) -> None:
        if self.swap.active:
            return
        for p in (*self.weights.values(), *self.scores.values()):
            if p.grad is not None:  # of micro-batches that have been pulled back already
                self._earlier[p], p.grad = p.grad, None
        self.swap.take_out()
        for name, weight in self.weights.items():
            self._place(weight.detach(), self.swap.copies[name], self._spreads[name])

    @torch.no_grad()
    def close(self, weight: float = 1.0) -> None:
        if not self.swap.active:
            return
        self.swap.put_back()
        self._pull_back()
        self.pressure.push(self.scores, weight, self._scratch)
        for p, earlier in self._earlier.items():
            p.grad = earlier if p.grad is None else p.grad.add_(earlier)
        self._earlier.clear()

    def abandon(self) -> None:
        if self.swap.active:
            self.swap.put_back()
        self._earlier.clear()

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self._applied:  # inside another such block: what is kept are the weights, and must stay so
            yield
            return
        if self.swap.active:
            raise InputError("applied() was called inside passes(), where a step computes. Leave passes() first.")
        masks = self.masks()
        self.swap.take_out()
        self._applied = True
        try:
            with torch.no_grad():
                self.fold()
            masks.apply_(self.model)
            yield
        finally:
            self._applied = False
            self.swap.put_back()

    def _masks(self, chosen: Callable[[Tensor], bool]) -> dict[str, Tensor]:
        kept, masks = self.pressure.kept(self.scores, self.evaluated_at), {}
        for name, weight in self.weights.items():
            if chosen(weight):
                masks[name] = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
                for key, spread in self._spreads[name]:
                    masks[name] &= expanded(kept[key].to(weight.device), spread, weight.shape)
        return masks

    def _place(self, weight: Tensor, kept: Tensor, spreads: list[tuple[str, Spread]]) -> None:
        """Turns a weight into what the model computes with, in place."""
        so_far = kept
        for key, spread in spreads:
            score = self.scores[key]
            # Values of single weights are first written over the weight: its memory is free until the product.
            own = so_far is kept and score.shape == weight.shape
            values = self._values(key, weight if own else torch.empty_like(score))
            torch.mul(so_far.view(spread.shape), spread.spread(values), out=weight.view(spread.shape))
            so_far = weight

    def _pull_back(self) -> None:
        """Converts gradients of the gated weights, in place, to gradients of the weights and of the scores."""
        totals: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            if weight.grad is not None:
                for place, (key, spread) in enumerate(self._spreads[name]):
                    product = weight.grad * weight
                    self._multiply(name, product, without=place)
                    own = spread.collect(product, self.scores[key].shape)
                    totals[key] = totals[key].add_(own) if key in totals else own
                self._multiply(name, weight.grad)
        for key, total in totals.items():
            slope = self.function.slope(key, self.scores[key], self.at)
            self.scores[key].grad = total if slope is None else total.mul_(slope)

    def _multiply(self, name: str, entries: Tensor, without: int | None = None) -> None:
        """Multiplies a tensor like a weight by the values of the weight's units, in place."""
        for place, (key, spread) in enumerate(self._spreads[name]):
            if place != without:
                values = self._values(key, self.swap.scratch(name, self.scores[key]))
                entries.view(spread.shape).mul_(spread.spread(values))

    def _values(self, key: str, out: Tensor) -> Tensor:
        score = self.scores[key]
        return self.pressure.restrict(key, score, self.function.values(key, score, self.at, out))

    def _scratch(self, key: str) -> Tensor:
        return self.swap.scratch(key, self.scores[key])

    def _groups(self) -> Mapping[str, MaskGroup]:
        return self.units if isinstance(self.units, Mapping) else matrix_units(self.weights, self.units)

    def _first(self, group: MaskGroup) -> Tensor:
        like = self.weights[next(iter(group.members))]
        return torch.full(group.shape, self.function.first_score, dtype=like.dtype, device=like.device)


def _touched(model: nn.Module, groups: Mapping[str, MaskGroup]) -> dict[str, nn.Parameter]:
    known = named_weights(model, every_name=True)
    names = [name for group in groups.values() for name in group.members]
    for name in names:
        if name not in known:
            raise InputError(f"there is no {name} in {type(model).__name__}. Take the units from this model's anatomy.")
    return {name: known[name] for name in names}
