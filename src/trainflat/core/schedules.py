"""Schedules a quantity over a run: constant at its first value, changed, constant at its last."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.registry import Registry
from trainflat.core.settings import Check, Number


class _Length(Check):
    def read(self, name: str, value: Any) -> int | float:
        # By type, not by size: 1 is one step and 1.0 would be the whole run, which leaves nothing to schedule.
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole and not (isinstance(value, float) and 0 <= value < 1):
            raise InputError(
                f"{name} of a schedule is a number of optimizer steps such as 500, or a share of the run in [0, 1) "
                f"such as 0.1, got {value!r}."
            )
        length: int | float = value
        return length


Length = Annotated[int | float, _Length()]
"""A whole number of optimizer steps, or a share of the run in [0, 1)."""
_COUNT = Number("of a schedule in steps is a whole number >= 1", lambda x: x >= 1, whole=True)


class Schedule(Configurable, ABC):
    """Base of schedules from 0 to 1: 0 for ``start``, then the subclass's shape, and 1 for ``hold`` at the end.

    ``step`` is the number of optimizer steps already taken: the passes of a run of T steps are at 0 … T - 1, and the
    model that it ends with is at T, where every schedule is 1.

    Args:
        start: Length at 0, in optimizer steps (a whole number) or as a share of the run (a fraction).
        hold: Length at 1 at the end, in the same units.

    Raises:
        InputError: a length is neither.

    Example:
        >>> cubic = Cubic(start=10, hold=0.5)
        >>> [round(cubic.share(step, 100), 3) for step in (0, 10, 30, 50, 100)]
        [0.0, 0.0, 0.875, 1.0, 1.0]
    """

    start: Length = 0
    hold: Length = 0

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    @abstractmethod
    def shape(self, progress: float) -> float:
        """Returns the value of the shape at a progress in [0, 1)."""

    def lengths(self, total_steps: int) -> tuple[int, int]:
        """Returns the number of steps at 0 at the beginning and at 1 at the end.

        Raises:
            InputError: no step of the run is left between them.
        """
        start, hold = (n if isinstance(n, int) else round(n * total_steps) for n in (self.start, self.hold))
        if start + hold >= max(total_steps, 1):
            raise InputError(
                f"the schedule holds {plural(start, 'step')} at its start and {hold} at its end, and the run has "
                f"{total_steps}. Train longer, or give lengths as shares of the run, such as start: 0.1 and hold: 0.3."
            )
        return start, hold

    def share(self, step: int, total_steps: int) -> float:
        """Returns the value after ``step`` steps, in [0, 1].

        Raises:
            InputError: ``start`` and ``hold`` do not fit the run.
        """
        start, hold = self.lengths(total_steps)
        if step < start:
            return 0.0
        if step >= total_steps - hold:
            return 1.0
        return self.shape((step - start) / (total_steps - start - hold))

    def value(self, step: int, total_steps: int, first: float, last: float) -> float:
        """Interpolates from ``first`` to ``last``, exact at both ends."""
        # first + (last - first) * 1 may miss last by a rounding, and a final sparsity by a weight.
        share = self.share(step, total_steps)
        return last if share == 1 else first + (last - first) * share

    def curve(self, total_steps: int, first: float, last: float, points: int = 9) -> list[tuple[int, float]]:
        """Samples (step, value) at the ends of the run and of the change, and evenly between."""
        start, hold = self.lengths(total_steps)
        way = total_steps - hold - start
        steps = {0, total_steps, *(start + round(way * k / (points - 1)) for k in range(points))}
        return [(step, self.value(step, total_steps, first, last)) for step in sorted(steps)]


class Cubic(Schedule):
    """Rises as ``1 - (1 - progress)^3``: fast while weights are redundant (Zhu and Gupta 2017, arXiv:1710.01878)."""

    def shape(self, progress: float) -> float:
        return 1 - (1 - progress) ** 3


class Linear(Schedule):
    """Rises linearly."""

    def shape(self, progress: float) -> float:
        return progress


class Constant(Schedule):
    """Jumps to 1 after ``start``."""

    def shape(self, progress: float) -> float:
        return 1.0


class Steps(Schedule):
    """Rises in ``count`` equal steps at equal distances, the first of them after ``start``.

    Example:
        >>> [Steps(count=4).share(step, 100) for step in (0, 25, 50, 75)]
        [0.25, 0.5, 0.75, 1.0]
    """

    count: Annotated[int, _COUNT] = 5

    def shape(self, progress: float) -> float:
        return (int(progress * self.count) + 1) / self.count  # + 1: the first step is taken at start


SCHEDULES: Registry[Schedule] = Registry("schedule", cubic=Cubic, linear=Linear, constant=Constant, step=Steps)


def make_schedule(given: str | Mapping[str, Any] | Schedule) -> Schedule:
    """Builds a schedule from a name or a mapping such as ``{"name": "cubic", "start": 0.1, "hold": 0.3}``.

    A schedule is returned as it is.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a section without a name, and a value that cannot be used.

    Example:
        >>> section(make_schedule("cubic"))
        {'name': 'cubic', 'start': 0, 'hold': 0}
    """
    if isinstance(given, Schedule):
        return given
    made: Schedule = SCHEDULES.read(given).build()
    return made


def section(schedule: Schedule) -> dict[str, Any]:
    """Returns a schedule as a recipe's section, every option with its value."""
    name = next(name for name, kind in SCHEDULES.items() if type(schedule) is kind)
    return {"name": name, **vars(schedule)}


class _Scheduled(Check):
    def read(self, name: str, value: Any) -> Schedule:
        return make_schedule(value)

    def dump(self, value: Schedule) -> dict[str, Any]:
        return section(value)


SCHEDULED = _Scheduled()
ScheduleOption = Annotated[Any, SCHEDULED]  # a name, a section or a Schedule; kept as a Schedule
