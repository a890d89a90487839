"""Finds the processes that a grid started."""

from contextlib import suppress
from pathlib import Path


def workers_of(out: Path) -> list[int]:
    """The processes of workers of a folder's runs."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"trainflat.commands.grid.worker" in words and any(str(out).encode() in word for word in words):
                found.append(int(place.name))
    return found
