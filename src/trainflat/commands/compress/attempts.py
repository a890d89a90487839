"""Finds the budget that a goal comes to: what is asked for is measured, and the budget corrected by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from trainflat.commands.compress.pair import Speed
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.progress import Progress
from trainflat.protocols.stages import Produced
from trainflat.pruning.structured.budgets import Budget, MultiplyAdds, Parameters
from trainflat.records.compression import Goal

_TRIES = 4
_CLOSE = 1.1  # a time within 10 % of the one that was asked for is what was asked for
_BYTES = 4  # per parameter, as float32
_STEPS = 5  # of the bisection of a share


@dataclass(frozen=True)
class Search:
    """Prunes towards a goal.

    Attributes:
        make: Makes a smaller model within a budget.
        fast: Makes the budget of a speed-up, from times of this machine.
        time: Times one beside the original.
        drop: Returns the points that one loses.
        length: Tokens per row.
        progress: Is told of every attempt.
    """

    make: Callable[[Budget], Produced]
    fast: Callable[[float], Budget]
    time: Callable[[Produced], Speed]
    drop: Callable[[Produced], float]
    length: int
    progress: Progress

    def reach(self, goal: Goal, dense_milliseconds: float) -> Produced:
        """Returns the model for a goal.

        Raises:
            InputError: it is out of reach; says what is not.
        """
        if goal.kind == "sparsity":
            return self.make(Parameters(share=1 - goal.value))
        if goal.kind == "size":
            return self.make(Parameters(count=max(int(goal.value * 1e6 / _BYTES), 1)))
        if goal.kind == "max-drop":
            return self._within_drop(goal.value)
        asked = f"--{goal.kind} {goal.value:g}" + ("ms" if goal.kind == "latency" else "")
        speedup = goal.value if goal.kind == "speedup" else dense_milliseconds / goal.value
        if speedup <= 1:
            raise InputError(
                f"--latency {goal.value:g}ms: the model takes {dense_milliseconds:.1f} ms already. Ask for less."
            )
        return self._as_fast(speedup, asked)

    def _as_fast(self, speedup: float, goal: str) -> Produced:
        """Asks the table of widths for more, or for less, until the measured speed-up is the one that was asked for."""
        tries: list[tuple[float, float]] = []  # asked, and found
        best, asked = None, speedup
        for _ in range(_TRIES):
            made = self.make(self.fast(asked))
            found = self.time(made).ratio.value
            tries.append((asked, found))
            self.progress.say(f"{found:.2f} times as fast, {speedup:g} was asked for")
            if found >= speedup / _CLOSE:
                best = made
            if speedup / _CLOSE <= found <= speedup * _CLOSE:
                break
            asked = max(_next_asked(tries, speedup), 1.0)
        if best is None:
            reached = max(found for _, found in tries)
            raise InputError(
                f"{goal} was not reached: the fastest of {plural(len(tries), 'model')} was {reached:.2f} times as fast "
                f"as the original, {speedup:.2f} were needed. Ask for less, or time other sizes with --batch and "
                "--length; times on a busy machine are not to be relied on."
            )
        return best

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


def _next_asked(tries: Sequence[tuple[float, float]], speedup: float) -> float:
    """Follows the line through the last two tries, in logarithms and with a slope in [0.2, 1]; 1 after a single try."""
    (asked, found), slope = tries[-1], 1.0
    if len(tries) > 1 and tries[-2][0] != asked:
        before, reached = tries[-2]
        slope = min(max(log(found / reached) / log(asked / before), 0.2), 1.0)
    wanted: float = asked * (speedup / found) ** (1 / slope)
    return wanted
