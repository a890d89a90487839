"""Finds the budget that a goal comes to."""

from collections.abc import Callable
from dataclasses import dataclass

from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.protocols.stages import Produced
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
            raise InputError(f"{goal}: {error}") from error

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
                "Allow more points, or add --retrain 2."
            )
        return best


def by_count(goal: Goal) -> Parameters | None:
    """Returns the budget of a goal that is counted, not measured."""
    if goal.kind == "sparsity":
        return Parameters(share=1 - goal.value)
    if goal.kind == "size":
        return Parameters(count=max(int(goal.value * 1e6 / _BYTES), 1))
    return None
