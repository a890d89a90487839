"""Finds the budget that a goal comes to."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.protocols.stages import Produced
from trainflat.pruning.structured import OutOfReach
from trainflat.pruning.structured.budgets import Budget, MultiplyAdds, Parameters
from trainflat.records.compression import Goal

_BYTES = 4  # per parameter, as float32
_STEPS = 5  # of the bisection of a share


@dataclass(frozen=True)
class Search:
    """Prunes towards a goal.

    Attributes:
        make: Makes a smaller model within a budget.
        fast: Makes the budget of a speed-up, from times of this machine.
        drop: Returns the points that one loses.
        length: Tokens per row.
        progress: Is told of every attempt.
    """

    make: Callable[[Budget], Produced]
    fast: Callable[[float], Budget]
    drop: Callable[[Produced], float]
    length: int
    progress: Progress

    def reach(self, goal: Goal, dense_milliseconds: float) -> Produced:
        """Returns the model for a goal.

        Raises:
            InputError: it is out of reach; says what is not.
        """
        if (budget := by_count(goal)) is not None:
            return self.make(budget)
        if goal.kind == "max-drop":
            return self._within_drop(goal.value)
        speedup = goal.value if goal.kind == "speedup" else dense_milliseconds / goal.value
        if speedup <= 1:
            raise InputError(f"{goal}: the model takes {dense_milliseconds:.1f} ms already. Ask for less.")
        try:
            return self.make(self.fast(speedup))
        except InputError as error:
            raise refusal(goal, error) from error

    def _within_drop(self, points: float) -> Produced:
        """Bisects the share of multiply-adds for the smallest model that loses at most so many points."""
        low, high = 0.0, 1.0
        best: Produced | None = None
        for _ in range(_STEPS):
            share = (low + high) / 2
            made = self.make(MultiplyAdds(share=share, length=self.length))
            lost = self.drop(made)
            self.progress.say(f"{share:.0%} of the multiply-adds: {lost:+.2f} points lost, {points:g} are allowed")
            if lost <= points:
                best, high = made, share
            else:
                low = share
        if best is None:
            raise InputError(
                f"--max-drop {points:g}: even with {low:.0%} of the multiply-adds the score falls by more. "
                "Allow more points, or more epochs of --retrain."
            )
        return best


def by_count(goal: Goal) -> Parameters | None:
    """Returns the budget of a goal that is counted, not measured."""
    if goal.kind == "sparsity":
        return Parameters(share=1 - goal.value)
    if goal.kind == "size":
        return Parameters(count=max(int(goal.value * 1e6 / _BYTES), 1))
    return None


def refusal(goal: Goal, error: InputError) -> InputError:
    """Returns the error of a goal whose budget was refused; one out of reach names the farthest goal that is not."""
    most = (
        f" The most that can be asked for is {_reachable(goal, error.excess)}." if isinstance(error, OutOfReach) else ""
    )
    return InputError(f"{goal}: {error}{most}")


def _reachable(goal: Goal, excess: float) -> Goal:
    """Returns the farthest goal in three digits, rounded towards what is in reach, so that it can be asked for."""
    if goal.kind == "sparsity":
        return _rounded(goal, 1 - (1 - goal.value) * excess, math.floor)
    if goal.kind == "speedup":
        return _rounded(goal, goal.value / excess, math.floor)
    return _rounded(goal, goal.value * excess, math.ceil)


def _rounded(goal: Goal, value: float, whole: Callable[[float], int]) -> Goal:
    digits = 2 - math.floor(math.log10(max(value, 1e-9)))  # 0 where there is nothing left to remove
    return Goal(kind=goal.kind, value=round(whole(value * 10.0**digits) / 10.0**digits, max(digits, 0)))
