"""What ``trainflat bench`` finds out about models side by side, as data, which reports draw."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainflat.files import write_json
from trainflat.record import Fingerprint

COMPARISON_FILE = "bench.json"
FORMAT = 1


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Data):
    """One model as one backend runs it."""

    model: str  # as it was given, as far as it takes to tell it from the others
    backend: str
    bytes: int  # of its weights on disk
    peak_bytes: int | None = None  # resident memory of a process that did nothing but what was timed; Linux only
    score: float | None = None  # in percent

    @property
    def name(self) -> str:
        """For a row of a table."""
        return f"{self.model}, {self.backend}"


class Speedup(_Data):
    """How many times as fast as the reference, round by round.

    ``low`` and ``high`` hold the median with a probability of 95 %; None where there were too few rounds to tell.
    """

    low: float | None
    high: float | None
    value: float | None  # the median; None where the interval holds 1, for then there is no speed-up to tell of


class Timing(_Data):
    """Seconds of one forward pass of one variant: median and quartiles over rounds."""

    median: float
    low: float
    high: float
    samples: list[float]  # by round
    noisy: int  # rounds in which other processes used the machine, even after retaking
    speedup: Speedup | None = None  # None for the reference itself


class Cell(_Data):
    """All variants at one size of input and one number of threads, in the order of ``Comparison.variants``."""

    batch: int
    length: int
    threads: int
    timings: list[Timing]

    @property
    def name(self) -> str:
        """For a title."""
        return f"{self.batch} × {self.length} tokens, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def throughput(self, timing: Timing) -> float:
        """Rows per second."""
        return self.batch / timing.median


class Comparison(_Data):
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
        """The variants that no other beats: none is both faster and better. By latency, fastest first.

        Better is a higher score; where nothing was scored, fewer bytes. Of two that are equal in both, both stay.
        """
        points = [(timing.median, -self.worth(n)) for n, timing in enumerate(cell.timings)]
        best = [n for n, one in enumerate(points) if not any(_beats(other, one) for other in points)]
        return sorted(best, key=lambda n: points[n])

    def worth(self, variant: int) -> float:
        """What latency is paid for, the higher the better: the score, else fewer bytes."""
        one = self.variants[variant]
        return -float(one.bytes) if one.score is None else one.score


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def save_comparison(found: Comparison, folder: Path) -> Path:
    """Writes ``bench.json``, atomically.

    Raises:
        InputError: it cannot be written.
    """
    write_json(folder / COMPARISON_FILE, {"format": FORMAT, **found.model_dump(mode="json")})
    return folder / COMPARISON_FILE
