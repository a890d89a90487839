"""Keeps losses on disk as they are measured."""

import hashlib
import math
from collections import UserDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import MOVE, read_json, write_json
from trainflat.records.landscape import Loss


class Store(UserDict[str, Loss]):
    """Stores losses by key; each is on disk before the next one is measured.

    Args:
        path: JSON file, rewritten atomically with every loss: a plane has a few hundred losses, and each takes a pass
            over all rows. None keeps the losses in memory only.
        work: Hash of everything that the losses depend on.

    Raises:
        InputError: the file holds losses of other work.
        DamagedFile: the file is not what was written.
    """

    def __init__(self, path: Path | None, work: str) -> None:
        super().__init__()
        self.path, self.work = path, work
        if path is not None and path.exists():
            self.data = self._read(path)

    def _read(self, path: Path) -> dict[str, Loss]:
        value = read_json(path)
        if not _is_whole(value):
            raise DamagedFile(f"{path} does not hold the losses that were written there. {MOVE}")
        if value["work"] != self.work:
            raise InputError(
                f"{path} holds losses of another plane: its models, data, size or margin differ. "
                "Name another store, or delete this one to start again."
            )
        losses: dict[str, Loss] = value["losses"]
        return losses

    def __setitem__(self, key: str, loss: Loss) -> None:
        self.data[key] = loss
        if self.path is not None:
            write_json(self.path, {"work": self.work, "losses": self.data})


def _is_whole(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"work", "losses"} or not isinstance(value["losses"], dict):
        return False
    losses = value["losses"].values()
    return all(loss is None or (isinstance(loss, float) and math.isfinite(loss)) for loss in losses)


def fingerprint(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """Hashes texts and the shapes, dtypes and bits of tensors, in order, by SHA-256; 64 hexadecimal digits."""
    digest = hashlib.sha256("\0".join(texts).encode())
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"\0{flat.dtype}{list(flat.shape)}".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())  # as bytes, for numpy has no bfloat16
    return digest.hexdigest()
