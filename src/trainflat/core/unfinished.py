"""Stores finished parts of long work on disk, so that a command that was killed continues from there."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from trainflat.core.errors import DamagedFile
from trainflat.core.files import hash_json, read_as, write_json
from trainflat.core.untrusted import validated

T = TypeVar("T")
UNFINISHED_FILE = "unfinished.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Any
    seconds: float


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str  # of the parts: an edited or damaged number would otherwise enter a record unnoticed
    parts: dict[str, dict[str, _Part]]  # by key, then by name


class Unfinished:
    """Stores the finished parts of one piece of work, each as soon as it is done.

    A part that cannot be read, or has another key, is computed again without a message.

    Args:
        path: The file, which may hold parts of several keys; None stores nothing. The caller deletes it once the whole
            result is saved.
        key: Hash of everything that the parts depend on.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.all = {} if path is None else _read(path)
        self.parts = self.all.setdefault(key, {})

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    def take(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """Returns a stored part, or computes and stores it; pydantic validates it as ``kind``."""
        if name in self.parts:
            with suppress(DamagedFile):  # written by another version, with other fields
                kept: T = validated(self.parts[name].value, kind, name, "")
                return kept
        started = time.perf_counter()
        found = compute()
        value = TypeAdapter(kind).dump_python(found, mode="json")
        self.parts[name] = _Part(value=value, seconds=time.perf_counter() - started)
        if self.path is not None:
            parts = _plain(self.all)
            write_json(self.path, {"sha256": hash_json(parts), "parts": parts})
        return found

    def seconds(self) -> float:
        """Returns the seconds of all parts together, in this call and before."""
        return sum(part.seconds for part in self.parts.values())


def _read(path: Path) -> dict[str, dict[str, _Part]]:
    try:
        kept = read_as(path, _Kept, "a list of finished parts")
    except DamagedFile:  # also raised where there is no file
        return {}
    return kept.parts if kept.sha256 == hash_json(_plain(kept.parts)) else {}


def _plain(parts: dict[str, dict[str, _Part]]) -> dict[str, dict[str, Any]]:
    return {key: {name: part.model_dump() for name, part in one.items()} for key, one in parts.items()}
