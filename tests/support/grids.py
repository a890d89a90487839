"""A grid of tiny runs on a user's own file, and executors that start no process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.conftest import tiny_bert
from tests.support import families, runs
from trainflat.commands.grid.status import FileProgress
from trainflat.commands.grid.worker import Work, outcome
from trainflat.core.files import read_as

FINDERS = {"adamw": {"training.optimizer": "adamw"}, "sam": {"training.optimizer": {"name": "sam", "rho": 0.05}}}


def tiny_recipe(folder: Path) -> dict[str, Any]:
    model = families.write(folder / "model", tiny_bert())
    made = runs.recipe(model, runs.own_files(folder)) | {"name": "tiny", "evaluation": {"latency": {"batches": []}}}
    return made | {"protocol": {"name": "iterative", "sparsities": [0.5]}}


def tickets(folder: Path, seeds: int = 1) -> dict[str, Any]:
    """Tickets that AdamW and SAM find, iteratively and at once, each trained by AdamW: 6 runs per seed."""
    recipe = tiny_recipe(folder)
    protocols = [{"name": "iterative", "sparsities": [0.5]}, {"name": "one-shot", "sparsities": [0.5]}]
    axes = {"protocol": protocols, "finder": FINDERS, "seed": list(range(seeds))}
    found = {
        finder: {"protocol.run": {"run": "found", "finder": finder, "protocol": "iterative"}} for finder in FINDERS
    }
    trained = {"protocol": {"name": "ticket", "structure": "found"}, "sparsity": 0.5, "training.optimizer": "adamw"}
    second = {"recipe": recipe, "set": trained, "axes": {"ticket": found, "seed": list(range(seeds))}}
    return {"name": "tickets", "parts": {"found": {"recipe": recipe, "axes": axes}, "trained": second}}


class InProcess:
    """Does each job when it is started, in this process, and says so when it is asked."""

    slots = 1

    def __init__(self) -> None:
        self.started: list[str] = []
        self.codes: dict[str, int] = {}

    def start(self, name: str, job: Path, log: Path) -> None:
        work = read_as(job, Work, "a job")
        self.started.append(name)
        self.codes[name] = outcome(work, FileProgress(work.folder))

    def ended(self) -> Mapping[str, int]:
        codes, self.codes = self.codes, {}
        return codes

    def stop(self) -> None:
        """Nothing is left to end."""


class Played:
    """Starts nothing: a test says which job ends, and how."""

    def __init__(self, slots: int, done: Callable[[str], None]) -> None:
        self.slots, self.done = slots, done
        self.running: list[str] = []
        self.codes: dict[str, int] = {}

    def start(self, name: str, job: Path, log: Path) -> None:
        self.running.append(name)

    def end(self, name: str, code: int = 0) -> None:
        self.running.remove(name)
        self.codes[name] = code
        if code == 0:
            self.done(name)

    def ended(self) -> Mapping[str, int]:
        codes, self.codes = self.codes, {}
        return codes

    def stop(self) -> None:
        self.running.clear()
