"""Pressures: what drives the sparsity of a learned mask."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.settings import Maybe
from trainflat.pruning.choice import keep_highest
from trainflat.pruning.gates.functions import GateFunction, Position, Scores
from trainflat.pruning.gates.selection import Selection, SizedSelection, dropped_share, total_size
from trainflat.pruning.options import NON_NEGATIVE, SHARE

Lambda = Annotated[float | None, Maybe(NON_NEGATIVE)]
Target = Annotated[float | None, Maybe(SHARE)]

_PROPORTIONAL, _INTEGRAL, _STRONGEST = 10.0, 0.1, 10.0
_MEMORY = 0.9  # of the running mean of the data's gradient
NEAR = 0.01  # of the target: as near as counts as there

Scratch = Callable[[str], Tensor]
"""Memory like the scores of a name, with anything in it."""


class Pressure:
    """Adds nothing: the gate function alone decides how sparse the mask is.

    Args:
        function: Whose scores are driven.

    Attributes:
        target: The sparsity to end with, if there is one.
    """

    def __init__(self, function: GateFunction) -> None:
        self.function, self.target = function, function.target

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        """The name of what the schedule raises from 0, and its last value."""
        return "sparsity", self.target or 0.0

    def begin(self) -> None:
        """Forgets an earlier run."""

    def advance(self, scores: Scores, at: Position, scratch: Scratch) -> None:
        """Decides, after an optimizer step, what holds for the next one."""

    def push(self, scores: Mapping[str, nn.Parameter], weight: float, scratch: Scratch) -> None:
        """Adds the gradient of a penalty on the scores to theirs, times ``weight``."""

    def restrict(self, name: str, score: Tensor, values: Tensor) -> Tensor:
        """Sets values to 0 that the function would leave open; may write over them."""
        return values

    def arrived(self, scores: Scores, at: Position) -> bool:
        """Returns whether the mask has its final sparsity, once the schedule has arrived."""
        return True

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        """Returns booleans like the scores: which units would stay if the training ended now."""
        return self.function.kept(scores, at)

    def logs(self, scores: Scores, at: Position) -> dict[str, float]:
        """Returns numbers for the log."""
        return {"sparsity": self.function.dropped(scores, at)}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs, for safetensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        """Goes on from what :meth:`state_dict` returned."""


class Penalty(Pressure):
    """Adds ``lambda * mean over parameters of the mean of sigmoid(S - shift)`` to the loss; lambda rises by schedule.

    Args:
        function: Whose scores are lowered, and whose ``shift`` it is.
        penalty: lambda.
        shares: By what each parameter's mean is multiplied before they are added up, by name; None takes their mean.
    """

    def __init__(self, function: GateFunction, penalty: float, shares: Mapping[str, float] | None = None) -> None:
        super().__init__(function)
        self.penalty, self.shares, self.strength = penalty, shares, 0.0

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "lambda", self.penalty

    def begin(self) -> None:
        self.strength = 0.0

    def advance(self, scores: Scores, at: Position, scratch: Scratch) -> None:
        self.strength = self.penalty * at.share

    @torch.no_grad()
    def push(self, scores: Mapping[str, nn.Parameter], weight: float, scratch: Scratch) -> None:
        if not self.strength:
            return
        for name, score in scores.items():
            if score.grad is not None:
                own = weight * self.strength / self._divisor(name, scores)
                share = torch.sub(score, self.function.shift, out=scratch(name)).sigmoid_()
                score.grad.add_(share, alpha=own).addcmul_(share, share, value=-own)  # the slope of a sigmoid

    def _divisor(self, name: str, scores: Scores) -> float:
        """Returns what the sum of a parameter's chances is divided by."""
        if self.shares is None:
            return scores[name].numel() * len(scores)
        return scores[name].numel() / self.shares[name] if self.shares[name] else math.inf

    def logs(self, scores: Scores, at: Position) -> dict[str, float]:
        return super().logs(scores, at) | {"penalty": self.strength}

    def state_dict(self) -> dict[str, Tensor]:
        return {"penalty": torch.tensor([self.strength, 0.0, 0.0, 0.0], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        self.strength = float(state["penalty"][0])


class Controller(Penalty):
    r"""Tunes lambda while training, so that the sparsity follows the schedule to a target.

    What sparsity a lambda leads to depends on the task, the length of the run and the learning rates. Adam makes steps
    of about one size, so a penalty counts only beside the data's gradient of the scores, whose mean size r is followed
    (``r = 0.9 r + 0.1 mean |dL/dS|``). Sparsity is seen coming: p is the mean over scores of their progress from the
    first value to the cut, between 0 and 1. With the sparsity s* that the schedule wants by now and N scores in all,
    after every step::

        e      = s* - p
        I      = clip(I + 0.1 * e, -10, 10)
        u      = clip(I + 10 * e, -10, 10)            a proportional-integral controller
        lambda = 4 * N * r * u                        at u = 1 the penalty's largest slope is r

    A negative lambda lifts the scores of a mask that is ahead of its schedule. Where the mask lags behind, the lowest
    scores above the cut are dropped too, straight through, chosen anew for every step; so s* is always reached, and
    missed only by a mask that is sparser. A checkpoint counts as the best within 0.01 of the target.

    Args:
        function: Whose scores are driven; it has a cut.
        target: Share of the units to drop in the end.
        shares: See :class:`Penalty`; lambda is then divided by their sum.
        sizes: Entries of each unit, like the scores, by name: sparsity and progress then count entries, and of each
            parameter's scores as many are left alone as :class:`~trainflat.pruning.gates.FlooredThreshold` keeps. None
            counts units.
    """

    def __init__(
        self,
        function: GateFunction,
        target: float,
        shares: Mapping[str, float] | None = None,
        sizes: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(function, 0.0, shares)
        self.target: float = target
        self.sizes = sizes
        self.begin()

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.target

    def begin(self) -> None:
        self.strength = self._control = self._integral = self._size = 0.0
        self._selection = Selection() if self.sizes is None else SizedSelection(self.sizes)

    def advance(self, scores: Scores, at: Position, scratch: Scratch) -> None:
        # At every step: the penalty moves all scores one way, so that an older choice soon drops another share.
        wanted = at.scheduled(self.target)
        self._selection.refresh(scores, wanted, "global")
        missed = wanted - self._progress(scores, at, scratch)
        self._integral = _clip(self._integral + _INTEGRAL * missed)
        self._control = _clip(self._integral + _PROPORTIONAL * missed)

    @torch.no_grad()
    def push(self, scores: Mapping[str, nn.Parameter], weight: float, scratch: Scratch) -> None:
        total = sum(score.numel() for score in scores.values())
        now = sum(float(s.grad.abs().sum()) for s in scores.values() if s.grad is not None) / total / weight
        if math.isfinite(now):  # else a loss scaler will skip the step
            self._size = _MEMORY * self._size + (1 - _MEMORY) * now if self._size else now
        self.strength = 4 * total * self._size * self._control
        if self.shares is not None:
            self.strength /= sum(self.shares.values())
        super().push(scores, weight, scratch)

    def restrict(self, name: str, score: Tensor, values: Tensor) -> Tensor:
        return values.mul_(self._selection.write(name, score, torch.empty_like(score)))

    def arrived(self, scores: Scores, at: Position) -> bool:
        return self._dropped(scores, at) - self.target <= NEAR

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        wanted = at.scheduled(self.target)
        if self._dropped(scores, at) >= wanted:
            return self.function.kept(scores, at)
        return keep_highest(scores, wanted) if self.sizes is None else SizedSelection(self.sizes).choose(scores, wanted)

    def logs(self, scores: Scores, at: Position) -> dict[str, float]:
        sparsity = max(self._dropped(scores, at), at.scheduled(self.target))
        return {"sparsity": sparsity, "penalty": self.strength}

    def state_dict(self) -> dict[str, Tensor]:
        numbers = [self.strength, self._control, self._integral, self._size]
        return self._selection.state_dict() | {"penalty": torch.tensor(numbers, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        self._selection.load_state_dict(state, scores)
        self.strength, self._control, self._integral, self._size = state["penalty"].tolist()

    def _dropped(self, scores: Scores, at: Position) -> float:
        if self.sizes is None:
            return self.function.dropped(scores, at)
        return dropped_share(self.function.kept(scores, at), self.sizes)

    @torch.no_grad()
    def _progress(self, scores: Scores, at: Position, scratch: Scratch) -> float:
        first, total = self.function.first_score, 0.0
        way = first - self.function.cut(at)
        for name, score in scores.items():
            done = torch.sub(score, first, out=scratch(name)).div_(-way).clamp_(0, 1)
            if self.sizes is not None:
                done.mul_(self.sizes[name].to(done))
            total += float(done.sum())
        count = sum(score.numel() for score in scores.values()) if self.sizes is None else total_size(self.sizes)
        return total / count


def penalty_or_target(
    function: GateFunction,
    penalty: float | None,
    target: float | None,
    shares: Mapping[str, float] | None = None,
    sizes: Mapping[str, Tensor] | None = None,
) -> Penalty:
    """Returns a penalty of a fixed lambda, or a controller where there is a target."""
    return Penalty(function, penalty or 0.0, shares) if target is None else Controller(function, target, shares, sizes)


def one_of_both(penalty: float | None, target: float | None, published: float) -> dict[str, float | None]:
    """Returns what the penalty comes to: where neither is given, the published one.

    Raises:
        InputError: both are given.
    """
    if penalty is not None and target is not None:
        raise InputError(f"penalty {penalty} fixes lambda, target_sparsity {target} tunes it. Give one of the two.")
    return {"penalty": published if penalty is None and target is None else penalty}


def check_reachable(target: float, least: float) -> None:
    """Checks that a target leaves as much as stays in any case.

    Args:
        target: Share of the weights to drop.
        least: Share of them that always stays.

    Raises:
        InputError: it does not; says the highest that does.
    """
    if target > 1 - least:
        most = math.floor((1 - least) * 1e4) / 1e4
        raise InputError(
            f"target_sparsity {target:g} cannot be reached: of the units of each matrix some stay in any case, "
            f"{least:.2%} of the weights. Ask for {most:g} at most."
        )


def _clip(value: float) -> float:
    return min(max(value, -_STRONGEST), _STRONGEST)
