"""Restricts a flat optimizer to some steps of the training."""

from dataclasses import dataclass

from trainflat.core.errors import InputError
from trainflat.optim.checks import number, whole


@dataclass(frozen=True)
class Phase:
    """Selects each ``every``-th step between two shares of the training.

    Raises:
        InputError: ``every`` is no whole number above 0, or the shares do not lie in order between 0 and 1.

    Example:
        >>> last_third = Phase(every=2, start=0.7)
        >>> [step for step in range(10) if last_third.includes(step, total=10)]
        [8]
    """

    every: int = 1
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        whole("every", self.every)
        for name in ("start", "stop"):
            number(name, getattr(self, name), "a share of the training, from 0 to 1", lambda x: 0 <= x <= 1)
        if self.start >= self.stop:
            raise InputError(f"start and stop are shares with start < stop, got {self.start} and {self.stop}.")

    @property
    def share(self) -> float:
        """The share of all steps that are flat, up to rounding."""
        return (self.stop - self.start) / self.every

    def includes(self, step: int, total: int | None) -> bool:
        """Returns whether the step, counted from 0, is a flat one.

        Raises:
            InputError: the shares need the number of all steps, and nobody gave it.
        """
        if step % self.every:
            return False
        if (self.start, self.stop) == (0, 1):
            return True
        if total is None:
            raise InputError(
                "start and stop are shares of the training: set optimizer.total_steps before its first step."
            )
        return self.start * total <= step < self.stop * total

    def check(self, total: int) -> None:
        """Refuses a training of so many steps none of which would be flat.

        Raises:
            InputError: none of its ``total`` steps is one of them.
        """
        if not any(self.includes(step, total) for step in range(0, total, self.every)):
            told = f"every {self.every}, start {self.start:g}, stop {self.stop:g}"
            raise InputError(f"no step of {total} would be flat ({told}). Train longer, or set a longer phase.")
