"""Gates on activations: which heads, units, sub-layers and hidden dimensions stay, learned while the model trains."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.anatomy import Unit, layout_of
from trainflat.anatomy.params import named_weights
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.schedules import ScheduleOption
from trainflat.pruning.gates.activations import HIDDEN, Draw, GatedActivations
from trainflat.pruning.gates.base import Gate
from trainflat.pruning.gates.expected_price import ExpectedPrice
from trainflat.pruning.gates.functions import HardConcrete, Position, generator_for
from trainflat.pruning.gates.lagrangian import ExpectedSize, Lagrangian, Size
from trainflat.pruning.gates.units import expanded, structure_units
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Perturb
from trainflat.pruning.structured.budgets import Budget
from trainflat.pruning.structured.kept import Kept, KeptLayer
from trainflat.pruning.structured.refusals import check

BOUND = math.log(100)
"""Scores stay between its negative and itself: chances between 0.047 and 0.998."""

_WAY = BOUND - HardConcrete.shift  # from there to a chance of a half


class StructuralGate(Gate):
    r"""Has the model compute with activations times values z, and learns the scores that z is drawn by.

    Values are :class:`~trainflat.pruning.gates.functions.HardConcrete` and stand where
    :class:`~trainflat.pruning.gates.activations.GatedActivations` says. Each micro-batch, which is each forward pass of
    the model inside :meth:`passes`, has a draw of its own, for all of its rows. The k-th of a block is drawn by seed,
    step and k, so that both passes of SAM and all processes see the same; with ``perturb_over: micro-batch``, where a
    block holds one micro-batch, all of a step share a draw. Draws are leaves of autograd's graph; what backward passes
    leave there becomes, when the block ends, the gradient of the scores in closed form: :math:`dL/dS = dL/dz \cdot
    z'(S)`. Nothing stays on the model between the blocks, and its weights are its own all the time.

    A :class:`~trainflat.pruning.gates.lagrangian.Lagrangian` drives the expected size. While the schedule is at its
    ``start`` the model trains as it is, without values. Evaluations and what training ends with see the values of
    :meth:`deterministic`, and compute what ``shrink(model, gate.kept())`` does. :meth:`finish` leaves the weights
    dense, and :meth:`applied` goes on to show the gated model.

    Args:
        model: A transformers model of a known architecture.
        function: From scores to values.
        target_sparsity: Expected share of the layers' parameters to drop in the end.
        schedule: When the target rises; values are drawn from the end of its ``start`` on.
        score_lr: Rate of the scores. Theirs and the multipliers' stay constant, whatever the schedule of rates.
        multiplier_lr: Rate of the multipliers.
        hidden: Whether hidden dimensions have values.
        tolerance: How much less of the parameters than the target may be gone for an evaluation to be the best.
        restart: Whether the optimizer's memory of the weights is dropped and the schedule of their rates begins anew
            where values begin to be drawn.
        budget: What may be left, in place of ``target_sparsity``: parameters, multiply-adds or measured time, of models
            without gates on hidden dimensions.
        perturb: What an optimizer like SAM perturbs; see :class:`~trainflat.pruning.gates.LearnedMask`.

    Attributes:
        activations: Where the values multiply.
        pressure: Drives the size.

    Raises:
        InputError: the model's structure is not known, or cannot be shrunk.
    """

    learns: ClassVar[bool] = True
    needs_hooks: ClassVar[bool] = True
    needs_weights: bool = True

    def __init__(
        self,
        model: nn.Module,
        function: HardConcrete,
        *,
        target_sparsity: float,
        schedule: ScheduleOption = "linear",
        score_lr: float = 1e-2,
        multiplier_lr: float = 1e-2,
        hidden: bool = True,
        tolerance: float = 1e-2,
        restart: bool = True,
        budget: Budget | None = None,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(model, schedule)
        self.function, self.hidden, self.tolerance, self.restart = function, hidden, tolerance, restart
        self.score_lr, self.multiplier_lr, self.perturb = score_lr, multiplier_lr, perturb
        self.activations = GatedActivations(self.model, hidden=hidden)
        self.pressure = _pressure(self.model, self.activations, function, target_sparsity, budget)
        self._standing: ExitStack | None = None  # hooks of a block of passes
        self._now: Draw | None = None  # what the model computes with
        self._draws: list[dict[str, Tensor]] = []  # of the block so far
        self._unseen = 0  # passes of the block without a graph

    def first(self, name: str) -> float:
        """Returns the mean of a group's first scores, which are drawn with a standard deviation of 0.01."""
        return self.function.first_score

    # A run

    @property
    def at(self) -> Position:
        """Returns the position in the training."""
        return Position(self.step, self.schedule.share(self.step, self.total_steps), self.seed)

    @property
    def dense_steps(self) -> int:
        """Returns the number of steps before values are drawn."""
        return self.schedule.lengths(self.total_steps)[0]

    @property
    def restarts_at(self) -> int | None:
        """Returns the number of steps after which the weights' optimizer begins anew; None for never."""
        return self.dense_steps or None if self.restart else None

    @property
    def on(self) -> bool:
        """Returns whether the model is gated by now."""
        return self.step >= self.dense_steps

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.pressure.target

    @property
    def settled(self) -> bool:
        """Returns whether the target has arrived and the model, as it would be shrunk now, is small enough."""
        near = self.pressure.target - self.tolerance
        return super().settled and self.pressure.size.gone(self.kept()) >= near

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        _refuse_structure(self.model, self.activations)
        self.pressure.refuse_unreachable(self.activations.sizes, -BOUND)

    @classmethod
    def check_model(cls, options: Any, model: nn.Module) -> None:
        super().check_model(options, model)
        activations = GatedActivations(model, hidden=options.hidden)
        _refuse_structure(model, activations)
        pressure = _pressure(model, activations, HardConcrete(0.0), options.target_sparsity, options.budget)
        pressure.refuse_unreachable(activations.sizes, -BOUND)

    @classmethod
    def check_length(cls, options: Any, total_steps: int) -> None:
        """Raises InputError also for a target that rises faster than scores can follow.

        Adam moves a score by about its rate per step, and from open to closed it is a way of 6.2.
        """
        super().check_length(options, total_steps)
        start, hold = options.schedule.lengths(total_steps)
        steps = total_steps - start - hold
        if steps * options.score_lr < _WAY:
            needed = math.ceil(_WAY / options.score_lr) if options.score_lr else "infinitely many"
            raise InputError(
                f"the target rises within {plural(steps, 'step')}, and at score_lr {options.score_lr:g} it takes a "
                f"score about {needed} from open to closed. Train longer, or set score_lr to "
                f"{math.ceil(1e3 * _WAY / steps) / 1e3:g}."
            )

    def prepare(self) -> None:
        like = next(iter(self.weights.values()))
        # Steps of 0.01 would be lost in half precision.
        dtype = torch.promote_types(like.dtype, torch.float32)
        for name, size in self.activations.sizes.items():
            first = torch.randn(size, generator=generator_for(self.seed, "first", name)) * 0.01 + self.first(name)
            self.scores[name] = nn.Parameter(first.to(like.device, dtype))
        self.pressure.begin(first.to(like.device, dtype))

    @torch.no_grad()
    def advance(self, step: int) -> None:
        self.step = step
        for score in self.scores.values() if step else ():  # first scores of 10 are bounded by the first step
            score.clamp_(-BOUND, BOUND)
        self.pressure.advance(self.scores, self.at, self._scratch)

    def param_groups(self) -> list[dict[str, Any]]:
        """Returns a group of the scores and one of the multipliers, which is maximized."""
        still = {"lr": self.multiplier_lr, "weight_decay": 0.0, "rho": 0.0, "clip": False, "reduce": True}
        ascending = {"params": [("multipliers", self.pressure.multipliers)], "maximize": True, "constant": True}
        return [*super().param_groups(), ascending | still]

    def score_group(self) -> dict[str, Any]:
        perturbed = {} if self.perturb in ("scores", "both") else {"rho": 0.0}
        loop = {"clip": False, "reduce": True, "constant": True}  # values are leaves of each process's own graph
        return {"lr": self.score_lr, "weight_decay": 0.0, **loop, **perturbed}

    def logs(self) -> dict[str, float]:
        """Returns the sparsity of the model as it would be shrunk now and, once it is gated, what drives it."""
        sparsity = {"sparsity": self.pressure.size.gone(self.kept())}
        return sparsity | self.pressure.logs(self.scores, self.at) if self.on else sparsity

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | self.pressure.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        self.pressure.load_state_dict(state, self.scores)
        self.pressure.advance(self.scores, self.at, self._scratch)

    # What is left

    @torch.no_grad()
    def deterministic(self) -> dict[str, Tensor]:
        """Returns the values of evaluations, by name: 0 for what goes, soft factors of what stays."""
        values = {name: _final(self.function, score) for name, score in self.scores.items()}
        if HIDDEN in values and not values[HIDDEN].any():  # without any there is no model
            best = self.scores[HIDDEN].argmax()
            values[HIDDEN][best] = 1.0
        return values

    def kept(self) -> Kept:
        """Returns what :func:`~trainflat.pruning.structured.shrink` would keep now, with soft factors."""
        kept = Kept.all(self.activations.anatomy)
        if not self.on:
            return kept
        values = {name: value.double().cpu() for name, value in self.deterministic().items()}
        layers = tuple(_layer(own, place, values) for place, own in enumerate(kept.layers))
        return replace(kept, layers=layers, hidden=values.get(HIDDEN, kept.hidden))

    def alive(self) -> list[bool]:
        """Returns for each layer whether its attention or feed-forward is not skipped in the current draw.

        All are where nothing is drawn; inside :meth:`applied` it is about the model as it would be shrunk.
        """
        return self.activations.alive(self._now or Draw({}, frozenset(), 0))

    def masks(self) -> Masks:
        """Returns which entries of the matrices would be left after shrinking; soft factors count as left."""
        masks = {name: torch.ones(w.shape, dtype=torch.bool, device=w.device) for name, w in self.weights.items()}
        values = self.deterministic() if self.on else {}
        for name, group in structure_units(self._units(), named_weights(self.model, every_name=True)).items():
            for tensor, spreads in group.members.items():
                for spread in spreads if tensor in masks and name in values else ():
                    masks[tensor] &= expanded(values[name] != 0, spread, masks[tensor].shape)
        return Masks(masks)

    def finish(self) -> None:
        """Leaves the weights as they are; ``shrink(model, gate.kept())`` makes the smaller model."""

    def _units(self) -> Iterator[Unit]:
        anatomy = self.activations.anatomy
        kinds = {name.rstrip(" 0123456789") for name in self.scores}
        return chain.from_iterable(anatomy.units(kind) for kind in sorted(kinds))

    # A step

    def open(self) -> None:
        if self._standing is not None or not self.on:
            return
        self._draws, self._unseen = [], 0
        self._standing = ExitStack()
        self._standing.enter_context(self.activations.standing(self._current))
        handle = self.model.register_forward_pre_hook(lambda *_: self._draw(), prepend=True)
        self._standing.callback(handle.remove)

    @torch.no_grad()
    def close(self, weight: float = 1.0) -> None:
        if self._standing is None:
            self._displace_nothing()
            return
        draws = self._draws
        self.abandon()
        for k, values in enumerate(draws):
            for name, value in values.items():
                if value.grad is not None:
                    score = self.scores[name]
                    own = value.grad * self.function.slope(_of_draw(name, k), score, self.at)
                    score.grad = own if score.grad is None else score.grad.add_(own)
        if draws:
            self.pressure.push(self.scores, weight, self._scratch)

    def _displace_nothing(self) -> None:
        # An optimizer that displaces the scores alone needs a gradient, also as long as there are no values.
        for score in self.scores.values() if self.perturb == "scores" else ():
            score.grad = torch.zeros_like(score)

    def abandon(self) -> None:
        if self._standing is not None:
            self._standing.close()
        self._standing, self._now, self._draws = None, None, []

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self._standing is not None:
            raise InputError("applied() was called inside passes(), where a step computes. Leave passes() first.")
        if self._now is not None or not self.on:  # inside another such block
            yield
            return
        self._now = Draw.of(self.deterministic())
        try:
            with self.activations.standing(self._current):
                yield
        finally:
            self._now = None

    def _draw(self) -> None:
        # Passes without a graph (ESAM compares rows by them) are counted apart, so that theirs are the same draws.
        learns = torch.is_grad_enabled()
        k = len(self._draws) if learns else self._unseen
        with torch.no_grad():
            values = {name: self._drawn(name, k, score) for name, score in self.scores.items()}
        self._now = Draw.of(values)
        if learns:
            self._draws.append({name: value.requires_grad_() for name, value in values.items()})
        else:
            self._unseen += 1

    def _drawn(self, name: str, k: int, score: Tensor) -> Tensor:
        return self.function.values(_of_draw(name, k), score.detach(), self.at, score)

    def _current(self) -> Draw:
        assert self._now is not None, "the model's own forward pass draws"
        return self._now

    def _scratch(self, name: str) -> Tensor:
        return torch.empty_like(self.scores[name], requires_grad=False)


def _pressure(
    model: nn.Module, activations: GatedActivations, function: HardConcrete, target: float, budget: Budget | None
) -> Lagrangian:
    """Drives the share of parameters to a target or, where there is a budget, its price to its limit."""
    if budget is not None:
        price = ExpectedPrice(model, budget, hidden=activations.hidden)
        return Lagrangian(function, price.target, price)
    size: Size = ExpectedSize(activations.anatomy, hidden=activations.hidden)
    return Lagrangian(function, target, size)


def _refuse_structure(model: nn.Module, activations: GatedActivations) -> None:
    """Raises InputError for a model that could not be shrunk to what is kept."""
    kept = Kept.all(activations.anatomy)
    if activations.hidden:
        kept = replace(kept, hidden=kept.hidden.index_fill(0, torch.tensor(0), 0.0))
    check(model, layout_of(model), activations.anatomy, kept)


def _final(function: HardConcrete, score: Tensor) -> Tensor:
    value = function.final(score)
    assert value is not None, "values of a hard-concrete gate are soft"
    return value


def _of_draw(name: str, k: int) -> str:
    return f"{name}, draw {k}"


def _layer(own: KeptLayer, place: int, values: Mapping[str, Tensor]) -> KeptLayer:
    heads, units = values.get(f"head {place}"), values.get(f"feed-forward unit {place}")
    whole = (values.get(f"{kind} sub-layer {place}") for kind in ("attention", "feed-forward"))
    attention, feed_forward = (1.0 if value is None else float(value) for value in whole)
    return replace(
        own,
        heads=own.heads if heads is None else heads,
        units=own.units if units is None else units,
        attention=attention,
        feed_forward=feed_forward,
    )
