"""What ``trainflat compress`` leaves beside a model: how it was made smaller, and what that cost and brought."""

from typing import Any

from trainflat.records.base import Data, Format, added_later
from trainflat.records.run import Fingerprint
from trainflat.records.structure import Structure

COMPRESSION_FILE = "compression.json"


class Goal(Data):
    """What was asked for, of the measures that ``trainflat compress`` knows."""

    kind: str  # "speedup", "latency", "size", "sparsity", "max-drop"
    value: float  # times, milliseconds, megabytes, a share, points

    def __str__(self) -> str:
        unit = {"latency": "ms", "size": "MB"}.get(self.kind, "")
        return f"--{self.kind} {self.value:g}{unit}"


class Side(Data):
    """One of the two models: the original, or the compressed one."""

    parameters: int
    bytes: int  # of its weights, as float32
    milliseconds: float  # of one forward pass: the median over rounds in which both took turns
    score: float | None = None  # in percent
    rows: int = 0  # that were scored


class Compression(Data):
    """A model that was made smaller.

    ``speedup`` and its quartiles are ratios of one round's times. ``agreement`` is the share of the scored rows that
    both models answer alike; where answers are numbers, the correlation of both models' numbers.
    """

    model: str  # as it was given
    architecture: str
    goal: Goal
    before: Side
    after: Side
    speedup: float
    speedup_low: float
    speedup_high: float
    batch: int
    length: int
    threads: int
    agreement: float
    margin: tuple[float, float] | None  # between which points the score is above the original's, in 95 of 100 draws
    task: str
    split: str
    metric: str
    data: dict[str, Fingerprint]
    structure: Structure
    retrained: float  # epochs
    calibration_rows: int
    labels_read: bool  # of these rows
    seed: int
    seconds: float  # of the whole call
    peak_bytes: int | None = None  # of resident memory; Linux only
    notes: list[str] = []
    environment: dict[str, Any]
    numbers: bool = added_later(False)  # whether answers are numbers

    @property
    def agreed(self) -> str:
        """Says how far the model agrees with its original, as a part of a sentence."""
        return agreed(self.agreement, self.numbers)


def agreed(agreement: float, numbers: bool) -> str:
    """Says how far a model agrees with its original.

    Example:
        >>> agreed(0.912, False), agreed(0.912, True)
        ("91.2% of the answers are the original's", "the answers correlate with the original's at 0.912")
    """
    if numbers:
        return f"the answers correlate with the original's at {agreement:.3f}"
    return f"{agreement:.1%} of the answers are the original's"


COMPRESSION = Format("compression", Compression)
