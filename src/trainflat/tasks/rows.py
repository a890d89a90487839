"""Holds the rows of a split as columns, with their source and fingerprint."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainflat.records.run import Fingerprint

LABEL = "label"


@dataclass(frozen=True)
class Rows:
    """Holds checked rows as columns of equal length.

    Attributes:
        source: Origin of the rows; see :class:`~trainflat.records.run.Fingerprint`.
        partial: Whether rows of the official split are missing, which makes scores incomparable with published ones.
    """

    columns: dict[str, list[Any]]
    source: str
    partial: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def select(self, indices: Sequence[int]) -> "Rows":
        """Selects rows by index and marks them as partial."""
        return Rows({name: [column[i] for i in indices] for name, column in self.columns.items()}, self.source, True)

    def relabel(self, places: Sequence[int]) -> "Rows":
        """Replaces class ``i`` by class ``places[i]``."""
        labels = [places[label] for label in self.columns[LABEL]]
        return Rows({**self.columns, LABEL: labels}, self.source, self.partial)

    def fingerprint(self) -> Fingerprint:
        """Counts and hashes the rows in order.

        Rows are hashed as JSON, not as bytes of the file, so that CSV, parquet and the hub give one hash for one data
        set. Columns are sorted for the same reason.
        """
        digest = hashlib.sha256(json.dumps(sorted(self.columns)).encode())
        for row in zip(*(self.columns[name] for name in sorted(self.columns)), strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
        return Fingerprint(rows=len(self), sha256=digest.hexdigest(), source=self.source, partial=self.partial)


def join(parts: Sequence[Rows]) -> Rows:
    """Concatenates rows; the sources are joined by ``+``."""
    columns = {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns}
    return Rows(columns, "+".join(part.source for part in parts), any(part.partial for part in parts))


def fingerprints(training: Rows, evaluation: dict[str, Rows]) -> dict[str, Fingerprint]:
    """Returns the fingerprint of the training split (``"train"``) and of every evaluation split."""
    return {"train": training.fingerprint(), **{name: part.fingerprint() for name, part in evaluation.items()}}
