"""What ``trainflat bench`` finds out about models side by side, as data, which reports draw."""

from pathlib import Path
from typing import Any

from trainflat.core.formatting import plural
from trainflat.core.margins import Difference, Score, difference
from trainflat.core.timing import median_interval
from trainflat.records.base import Data, Format
from trainflat.records.run import Fingerprint

COMPARISON_FILE = "bench.json"
_SAME_SIZE = 0.01  # files that differ by less differ in their headers


class Variant(Data):
    """One model as one backend runs it."""

    model: str  # as it was given, as far as it takes to tell it from the others
    backend: str
    bytes: int  # of its weights on disk
    peak_bytes: int | None = None  # resident memory of a process that did nothing but what was timed; Linux only
    score: float | None = None  # in percent
    without: list[float] = []  # the score without each group of rows, for its margin: see `trainflat.core.margins`
    remark: str = ""  # where the answers are no better than blind ones

    @property
    def name(self) -> str:
        """Returns the name for a row of a table."""
        return f"{self.model}, {self.backend}"


class Speedup(Data):
    """How many times as fast as the reference, round by round.

    ``low`` and ``high`` hold the median with a probability of 95 %; None where there were too few rounds to tell.
    """

    low: float | None
    high: float | None
    value: float | None  # the median; None where the interval holds 1, for then no speed-up is significant


class Timing(Data):
    """Seconds of one forward pass of one variant: median and quartiles over rounds."""

    median: float
    low: float
    high: float
    samples: list[float]  # by round
    noisy: int  # rounds in which other processes used the machine, even after retaking
    speedup: Speedup | None = None  # None for the reference itself


class Cell(Data):
    """All variants at one size of input and one number of threads, in the order of ``Comparison.variants``."""

    batch: int
    length: int
    threads: int
    timings: list[Timing]

    @property
    def name(self) -> str:
        """Returns the name for a title."""
        return f"{self.batch} × {plural(self.length, 'token')}, {plural(self.threads, 'thread')}"

    def throughput(self, timing: Timing) -> float:
        """Returns the rows per second."""
        return self.batch / timing.median


class Comparison(Data):
    """Models side by side; the first variant is what speed-ups refer to."""

    variants: list[Variant]
    cells: list[Cell]
    rounds: int
    environment: dict[str, Any]
    task: str | None = None
    split: str | None = None
    metric: str | None = None
    data: dict[str, Fingerprint] = {}

    @property
    def partial(self) -> bool:
        """Whether scores come from a part of the official split."""
        return any(one.partial for one in self.data.values())

    def frontier(self, cell: Cell) -> list[int]:
        """Returns the variants that differ significantly from another and that none beats, fastest first.

        One beats another that is significantly better in one respect, and worse in none. The respects are latency and
        score; where nothing was scored, latency and size.
        """
        count = range(len(self.variants))
        told = {(n, m): (_faster(cell.timings[n], cell.timings[m]), self.better(n, m)) for n in count for m in count}
        beaten = {m for (_, m), signs in told.items() if max(signs) > 0 and min(signs) >= 0}
        apart = {n for (n, _), signs in told.items() if any(signs)}
        return sorted(apart - beaten, key=lambda n: cell.timings[n].median)

    def better(self, one: int, other: int) -> int:
        """Returns 1 where the score, or without scores the size, is surely better, -1 where worse, 0 where unsure."""
        above = self.above(one, other)
        if above is not None:
            return (above.low > 0) - (above.high < 0)
        mine, its = (self.variants[n].bytes for n in (one, other))
        return (mine < its * (1 - _SAME_SIZE)) - (its < mine * (1 - _SAME_SIZE))

    def above(self, one: int, other: int) -> Difference | None:
        """Returns the points by which one score is above another; None where nothing was scored."""
        scores = [self._score(self.variants[n]) for n in (one, other)]
        return None if scores[0] is None or scores[1] is None else difference(scores[0], scores[1])

    def _score(self, one: Variant) -> Score | None:
        if one.score is None:
            return None
        rows = self.data[self.split].rows if self.split in self.data else 1  # of unknown rows nothing can be told
        return Score(value=one.score, rows=rows, metric=self.metric or "", without=one.without)


def _faster(one: Timing, other: Timing) -> int:
    """Returns 1 where one surely takes less time, -1 where more, 0 where the rounds leave it open."""
    low, high = median_interval([b / a for a, b in zip(one.samples, other.samples, strict=True)])
    return (low > 1) - (high < 1)


COMPARISON = Format("comparison", Comparison)


def save_comparison(found: Comparison, folder: Path) -> Path:
    """Writes ``bench.json``, atomically. Raises InputError if it cannot be written."""
    return COMPARISON.write(folder / COMPARISON_FILE, found)
