"""Writes how far a run of a grid is to a file beside the runs, and reads it: for the live table, on any machine."""

import time
from pathlib import Path

from pydantic import BaseModel

from trainflat.core.errors import DamagedFile
from trainflat.core.files import read_as, write_json
from trainflat.core.progress import Progress

_SECONDS = 1.0  # between two writes
PLACE = ".grid"  # reports pass over folders with a dot


class Status(BaseModel):
    """Says what a run does, and how far it is in that.

    Attributes:
        doing: Current piece of work, such as ``training sparsity-0.30``.
        done: Finished units of that piece.
        total: Units of that piece; 0 where it has none.
        note: Latest figure, such as the loss.
        said: Latest line about a finished stage.
        failed: Why the run ended; empty while it goes on, and at its end.
    """

    doing: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    said: str = ""
    failed: str = ""


def status_file(folder: Path) -> Path:
    """Returns where the status of the run in a folder is kept: outside of it, since it is no part of the run."""
    return folder.parent / PLACE / f"{folder.name}.json"


def read_status(folder: Path) -> Status:
    """Reads how far a run is; an empty status where nothing is known."""
    path = status_file(folder)
    try:
        return read_as(path, Status, "a status") if path.is_file() else Status()
    except DamagedFile:
        return Status()


class FileProgress(Progress):
    """Writes progress to the status file of a run, once a second at most, and lines that stay to standard output.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.status, self.written = status_file(folder), Status(), 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def say(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201 -- a log
        self._update(said=text)

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self._update(doing=what, total=total, done=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        self.status = self.status.model_copy(update={"done": done, "note": note})
        if time.monotonic() - self.written > _SECONDS:
            self._write()

    def end(self) -> None:
        self._update(doing="", total=0, done=0, note="")

    def fail(self, reason: str) -> None:
        """Says why the run ended."""
        self._update(failed=reason)

    def _update(self, **values: object) -> None:
        self.status = self.status.model_copy(update=values)
        self._write()

    def _write(self) -> None:
        write_json(self.path, self.status.model_dump())
        self.written = time.monotonic()
