"""Counts what a measure costs: the rows that go through the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, get_args

from trainflat.core.progress import Progress

Kind = Literal["values", "gradients", "products"]


@dataclass(frozen=True)
class Effort:
    """Records what a number was measured on, and what that took."""

    rows: int
    batches: int
    weights: int  # entries that could move: the survivors, if the objective has masks
    values: float  # losses without a gradient, in passes over all rows; so are the next two
    gradients: float  # each gives the loss too
    products: float  # exact Hessian-vector products

    def __add__(self, other: "Effort") -> "Effort":
        """Adds the passes of two measures on the same rows and weights."""
        spent = {kind: getattr(self, kind) + getattr(other, kind) for kind in get_args(Kind)}
        return replace(self, **spent)


class Meter:
    """Counts rows by what was asked of them, and shows progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rows: dict[Kind, int] = {"values": 0, "gradients": 0, "products": 0}
        self._watched = False
        self._done = self._total = 0

    def count(self, kind: Kind, rows: int) -> None:
        """Counts ``rows`` more."""
        self.rows[kind] += rows
        if self._watched:
            self._done = min(self._done + rows, self._total)  # how often an optimizer asks is not known beforehand
            self.progress.advance(self._done)

    @contextmanager
    def watched(self, what: str, total: int) -> Iterator[None]:
        """Shows every count inside the block, as part of about ``total`` rows."""
        self._watched, self._done, self._total = True, 0, total
        self.progress.begin(what, total)
        try:
            yield
        finally:
            self._watched = False
            self.progress.end()
