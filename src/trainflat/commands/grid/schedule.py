"""Decides which run of a grid starts when: after what it needs, and never beside one that trains the same stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from trainflat.commands.grid.cells import Cell
from trainflat.commands.grid.sharing import finished_stages
from trainflat.commands.grid.status import PLACE, Status, read_status, status_file
from trainflat.commands.grid.worker import BUSY, DONE, Work
from trainflat.commands.run_folder import is_locked
from trainflat.core.errors import InputError
from trainflat.core.files import write_json
from trainflat.records.run import RECORD_FILE, Record

State = Literal["waiting", "running", "elsewhere", "done", "failed"]
_TRIES = 5  # of a worker that was killed


class Executor(Protocol):
    """Runs workers: on this machine, or on a cluster."""

    slots: int

    def start(self, name: str, job: Path, log: Path) -> None:
        """Starts the worker of a job file."""

    def ended(self) -> Mapping[str, int]:
        """Returns exit codes by name of the workers that ended since the last call."""

    def stop(self) -> None:
        """Ends all workers."""


@dataclass
class Entry:
    """Holds one run and what became of it."""

    cell: Cell
    folder: Path
    keys: Mapping[str, str]  # of the stages that other runs may have too, by stage name
    state: State = "waiting"
    tries: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """Returns the name of its folder."""
        return self.folder.name

    @property
    def status(self) -> Status:
        """Reads how far it is."""
        return read_status(self.folder)


@dataclass
class Schedule:
    """Starts runs as others end.

    Attributes:
        entries: By the name of their folder, in the order of the grid.
        executor: Runs the workers.
        data: Folder with the task's files.
    """

    entries: Mapping[str, Entry]
    executor: Executor
    data: Path | None
    start: Path = field(default_factory=Path.cwd)

    def __post_init__(self) -> None:
        for entry in self.entries.values():
            self._look(entry)

    @property
    def open(self) -> bool:
        """Returns whether there are runs that may still be done."""
        return any(entry.state not in ("done", "failed") for entry in self.entries.values())

    def step(self) -> None:
        """Looks which runs ended, and starts those that can."""
        for name, code in self.executor.ended().items():
            self._ended(self.entries[name], code)
        waiting = [entry for entry in self.entries.values() if entry.state in ("waiting", "elsewhere")]
        for entry in waiting:
            self._look_again(entry)
        # Only now: a stage that is missing here, and that nobody works on, is trained by whoever starts next.
        finished = finished_stages({entry.folder: entry.keys for entry in self.entries.values()})
        for entry in waiting:
            if entry.state == "waiting" and self._may_start(entry, finished):
                self._start(entry, finished)

    def _look_again(self, entry: Entry) -> None:
        failed = [need for need in entry.cell.needs if self.entries[need].state == "failed"]
        if failed:
            entry.state, entry.reason = "failed", f"it needs {failed[0]}, which failed."
        elif is_locked(entry.folder):
            entry.state = "elsewhere"
        elif entry.state == "elsewhere":
            entry.state = "waiting"
            self._look(entry)

    def _may_start(self, entry: Entry, finished: Mapping[str, Path]) -> bool:
        at_work = [other for other in self.entries.values() if other.state in ("running", "elsewhere")]
        if sum(other.state == "running" for other in at_work) >= self.executor.slots:
            return False
        if any(self.entries[need].state != "done" for need in entry.cell.needs):
            return False
        in_work = {key for other in at_work for key in other.keys.values()} - finished.keys()
        return in_work.isdisjoint(entry.keys.values())

    def _start(self, entry: Entry, finished: Mapping[str, Path]) -> None:
        shared = {stage: finished[key].absolute() for stage, key in entry.keys.items() if key in finished}
        place = entry.folder.parent / PLACE
        place.mkdir(parents=True, exist_ok=True)
        job = place / f"{entry.name}.job.json"
        work = Work(
            recipe=entry.cell.recipe.resolved(), folder=entry.folder, data=self.data, shared=shared, start=self.start
        )
        write_json(job, work.model_dump(mode="json"))
        write_json(status_file(entry.folder), Status(doing="starting").model_dump())
        self.executor.start(entry.name, job.absolute(), (place / f"{entry.name}.log").absolute())
        entry.state, entry.tries = "running", entry.tries + 1

    def _ended(self, entry: Entry, code: int) -> None:
        entry.state = "waiting"
        if code == DONE:
            self._look(entry)
        elif code == BUSY or (code < 0 and entry.tries < _TRIES):
            return  # somebody else works on it; or it was killed, and goes on from its checkpoint
        if entry.state == "waiting":
            entry.state, entry.reason = "failed", entry.status.failed or _last_words(entry, code)

    def _look(self, entry: Entry) -> None:
        """Finds out whether a run is complete."""
        if not (entry.folder / RECORD_FILE).is_file() or is_locked(entry.folder):
            return
        try:
            Record.load(entry.folder)
        except InputError as error:
            entry.state, entry.reason = "failed", str(error)
        else:
            entry.state = "done"


def _last_words(entry: Entry, code: int) -> str:
    log = entry.folder.parent / PLACE / f"{entry.name}.log"
    if code < 0:
        return f"its process was killed {entry.tries} times, as the system does where memory runs out. See {log}."
    return f"its process ended with code {code}. See {log}."
