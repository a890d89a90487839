"""Times candidates side by side, and detects when other processes used the machine.

Two times taken minutes apart differ by the machine's clock rate, caches and other processes. So candidates alternate in
one process, round by round, each round starting with another candidate; a sample during which other processes used more
than 0.15 of a core is taken again; and a ratio is reported with the spread over its rounds.

The CPU time of other processes is read from Linux' ``/proc``; elsewhere every sample counts as quiet.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPEATS = 7
QUIET = 0.15  # cores that other processes may use during a sample
RETAKES = 3  # tries beyond the first for one noisy sample
PATIENCE = 120.0  # seconds that all retakes of one comparison may take together
# /proc/stat counts in ticks of 10 ms per core; over half a second its rounding stays below 0.1 cores.
SHORTEST_SAMPLE = 0.5


class Clock:
    """Reads the time, and the CPU time of other processes; tests replace it.

    Args:
        helpers: Numbers of running processes that work for the timed code, and so are not foreign.
    """

    def __init__(self, helpers: Collection[int] = ()) -> None:
        self.helpers = helpers

    def now(self) -> float:
        """Returns seconds since an arbitrary start."""
        return time.perf_counter()

    def foreign(self) -> float:
        """Returns the CPU seconds since boot of other processes, also those stolen by other virtual machines."""
        try:
            text = Path("/proc/stat").read_text(encoding="ascii")
        except FileNotFoundError:
            return 0.0
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, text.split("\n", 1)[0].split()[1:9])
        ticks = user + nice + system + irq + softirq + steal - sum(map(_ticks_of, self.helpers))
        return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _ticks_of(process: int) -> int:
    """Reads the CPU ticks of a process, in user and in system mode."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # the 14th and 15th; the name before them may hold spaces


def _no_preparation() -> None:
    pass


def _silent(text: str) -> None:
    pass


@dataclass
class Candidate:
    """Describes a call to time.

    Args:
        run: The call.
        prepare: Called before each timed call, outside the time; a sample is then a single call.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] = _no_preparation

    def take(self, calls: int, now: Callable[[], float]) -> float:
        """Times ``calls`` calls together, in seconds; a candidate in another process overrides it to time there."""
        start = now()
        for _ in range(calls):
            self.run()
        return now() - start


@dataclass(frozen=True)
class Sample:
    """Holds one timing."""

    seconds: float  # per call
    foreign: float  # cores that other processes used meanwhile, on average
    tries: int = 1

    @property
    def noisy(self) -> bool:
        """Whether other processes used the machine even at the last try."""
        return self.foreign > QUIET


@dataclass(frozen=True)
class Spread:
    """Holds a median with quartiles."""

    value: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Computes median and quartiles; of a single value all three are the value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Computes median and quartiles of the ratios round by round.

    A slow phase of the machine slows both sides of a round and cancels; in a ratio of medians it would not.
    """
    return spread([a / b for a, b in zip(over, under, strict=True)])


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Finds two of the values that enclose the median of their distribution with at least this probability.

    They are the k-th smallest and k-th largest of n, for the largest possible k: the median lies beyond each of them
    with probability ``sum over i < k of C(n, i) / 2^n``, whatever the distribution (Thompson, 1936). Fewer than 6
    values all lie on one side of their median with more than 5 % probability, so they give no interval at 95 %.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 8.0, 9.0])
        (2.0, 8.0)
        >>> median_interval([1.0, 2.0, 3.0])
        (-inf, inf)
    """
    ordered, beyond, k = sorted(values), 0.0, 0
    while 2 * (beyond + math.comb(len(ordered), k) / 2 ** len(ordered)) <= 1 - level:
        beyond += math.comb(len(ordered), k) / 2 ** len(ordered)
        k += 1
    return (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)


@dataclass
class Stopwatch:
    """Takes samples, and retakes noisy ones for at most ``patience`` seconds in all."""

    clock: Clock = field(default_factory=Clock)
    patience: float = PATIENCE

    def take(self, candidate: Candidate, calls: int) -> Sample:
        """Takes the quietest of at most ``1 + RETAKES`` samples; stops at the first that is quiet enough."""
        best = self._once(candidate, calls)
        for tries in range(2, RETAKES + 2):
            if not best.noisy or self.patience <= 0:
                break
            start = self.clock.now()
            again = self._once(candidate, calls)
            self.patience -= self.clock.now() - start
            best = min(best, again, key=lambda sample: sample.foreign)
            best = Sample(best.seconds, best.foreign, tries)
        return best

    def _once(self, candidate: Candidate, calls: int) -> Sample:
        candidate.prepare()
        foreign, start = self.clock.foreign(), self.clock.now()
        seconds = candidate.take(calls, self.clock.now)
        passed = self.clock.now() - start
        return Sample(seconds / calls, max(0.0, self.clock.foreign() - foreign) / passed)

    def calls_per_sample(self, candidate: Candidate) -> int:
        """Counts the calls for a sample long enough to detect other processes; warms the candidate up."""
        first = self._once(candidate, 1)
        if candidate.prepare is not _no_preparation or first.seconds >= SHORTEST_SAMPLE:
            return 1
        return math.ceil(SHORTEST_SAMPLE / self._once(candidate, 1).seconds)


def alternate(
    candidates: Mapping[str, Candidate],
    repeats: int = REPEATS,
    clock: Clock | None = None,
    say: Callable[[str], object] = _silent,
    *,
    patience: float = PATIENCE,
) -> dict[str, list[Sample]]:
    """Times all candidates in turn, ``repeats`` rounds; the same index is the same round.

    Each is called at least once before the first round, untimed.

    Args:
        candidates: By name.
        repeats: Rounds.
        clock: Clock to read.
        say: Called with a line of every round's times.
        patience: Seconds that all retakes of noisy samples may take together.
    """
    watch = Stopwatch(clock or Clock(), patience)
    calls = {name: watch.calls_per_sample(candidate) for name, candidate in candidates.items()}
    taken: dict[str, list[Sample]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(watch.take(candidates[name], calls[name]))
        say(f"  round {turn + 1}/{repeats}: {_line(taken)}")
    return taken


def _line(taken: Mapping[str, Sequence[Sample]]) -> str:
    latest = {name: samples[-1] for name, samples in taken.items()}
    times = ", ".join(f"{name} {readable(sample.seconds)}" for name, sample in latest.items())
    noisy = sum(sample.noisy for sample in latest.values())
    return f"{times}{f'  ({noisy} noisy)' if noisy else ''}"


def seconds(samples: Iterable[Sample]) -> list[float]:
    """Returns the seconds of samples."""
    return [sample.seconds for sample in samples]


def readable(value: float) -> str:
    """Formats a duration with a fitting unit: ``1.53 s``, ``184 ms``, ``12.1 min``."""
    for unit, size, limit in (("µs", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 120.0)):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    return f"{value / 60:.3g} min"
