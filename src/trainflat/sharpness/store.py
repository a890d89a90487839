"""Measures that take long, kept on disk as they come."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trainflat.errors import DamagedFile, InputError
from trainflat.files import read_json, write_json

T = TypeVar("T")


class Store(Generic[T]):
    """Measures by key; each is on disk before the next one is taken.

    Args:
        path: JSON, written anew and atomically with every measure (a JSON value); None keeps them in memory only.
        work: Hash of everything that the measures depend on.

    Raises:
        InputError: the file holds measures of other work.
        DamagedFile: it is not what was written.
    """

    def __init__(self, path: Path | None, work: str) -> None:
        self.path, self.work = path, work
        self.found: dict[str, T] = {}
        if path is not None and path.exists():
            self.found = self._read(path)
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a write that was killed
                leftover.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, T]:
        value = read_json(path)
        if not (
            isinstance(value, dict) and isinstance(value.get("measures"), dict) and set(value) == {"work", "measures"}
        ):
            raise DamagedFile(f"{path} does not hold the measures that were written there. Delete it to start again.")
        if value["work"] != self.work:
            raise InputError(
                f"{path} holds losses of another plane: its models, data, size or margin differ. "
                "Name another store, or delete this one to start again."
            )
        measures: dict[str, T] = value["measures"]
        return measures

    def get(self, key: str, measure: Callable[[], T]) -> T:
        """The measure of that key; taken and kept if it is not there."""
        if key not in self.found:
            self.found[key] = measure()
            if self.path is not None:
                write_json(self.path, {"work": self.work, "measures": self.found})
        return self.found[key]


def fingerprint(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """SHA-256 over texts and over the shapes, types and bits of tensors, in order; as 64 hexadecimal digits."""
    digest = hashlib.sha256("\0".join(texts).encode())
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"\0{flat.dtype}{list(flat.shape)}".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
