"""Plans a grid: checks every run, and counts what is trained, what is shared and what it costs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainflat.commands.behaviour import Given
from trainflat.commands.grid.cells import Cell, cells
from trainflat.commands.grid.sharing import stage_keys
from trainflat.commands.grid.spec import Grid, read_grid
from trainflat.commands.prepare import Job, Prepared, prepare
from trainflat.commands.run_folder import look
from trainflat.core.errors import InputError
from trainflat.core.files import hash_json
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.records.run import RECORD_FILE
from trainflat.tasks.base import Task

_PER_PARAMETER = 24  # bytes: weight, gradient, two moments, a perturbation, a copy for the best checkpoint
_BESIDE = 2 * 1024**3  # bytes of a worker beside its model: libraries, rows, activations
_UNSEEN = 110_000_000  # parameters of a model that could not be looked at: BERT-base


@dataclass(frozen=True)
class GridPlan:
    """Holds the runs of a grid, all checked.

    Attributes:
        name: Of the grid.
        rows: Each run, its job, and the keys of its stages that other runs may have too.
    """

    name: str
    rows: Sequence[tuple[Cell, Prepared, Mapping[str, str]]]

    @property
    def complete(self) -> int:
        """Counts the runs that have their record."""
        return sum((job.folder / RECORD_FILE).is_file() for _, job, _ in self.rows)

    @cached_property
    def trained(self) -> list[tuple[Prepared, str, float]]:
        """Lists every stage that is trained, once each: job, name, and forward and backward passes."""
        seen: set[str] = set()
        found = []
        for _, job, keys in self.rows:
            for stage, steps in job.stage_steps.items():
                key = keys.get(stage, f"{job.folder.name}/{stage}")
                if key not in seen:
                    seen.add(key)
                    found.append((job, stage, steps * job.recipe.training.passes_per_step))
        return found

    @property
    def trainings(self) -> int:
        """Counts trainings as if nothing were shared."""
        return sum(job.trainings for _, job, _ in self.rows)

    @property
    def passes(self) -> float:
        """Counts forward and backward passes, each over one batch."""
        return sum(passes for _, _, passes in self.trained)

    @property
    def memory(self) -> int:
        """Estimates the bytes that the largest of the runs needs."""
        sizes = [job.encoder.model.num_parameters() if job.encoder else _UNSEEN for _, job, _ in self.rows]
        return _BESIDE + _PER_PARAMETER * max(sizes)

    def fit(self, workers: int | None) -> tuple[int, int]:
        """Returns how many runs go on at a time, and the threads of each.

        One thread each is the most work in all: matrices of small models leave several threads waiting.
        """
        most = max(min(cores(), len(self.rows), _free_memory() // self.memory), 1)
        count = most if workers is None else workers
        return count, max(cores() // count, 1)


def plan_grid(
    source: str | Path | Mapping[str, Any] | Grid,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> GridPlan:
    """Reads a grid and checks each of its runs. Writes nothing.

    A run that takes a model or masks of another one is checked as far as it can be before that is there.

    Raises:
        InputError: the grid cannot be read, or names the first run that cannot be run.
    """
    read = read_grid(source)
    tasks: dict[str, Task] = {}
    rows = []
    crossed = cells(read, out, overrides)
    for cell in (progress or Progress()).each("checking runs", crossed, len(crossed)):
        try:
            job = _job(cell, data, out, tasks)
            rows.append((cell, job, stage_keys(job)))
        except InputError as error:
            raise InputError(f"{cell.part} ({cell.title}): {error}") from error
    return GridPlan(read.name, rows)


def _job(cell: Cell, data: Path | None, out: Path, tasks: dict[str, Task]) -> Prepared:
    recipe = cell.recipe
    seed = derive_seed(recipe.seed, "rows")
    key = hash_json([recipe.resolved()["task"], seed])  # the rows of many runs are the same, and reading takes seconds
    if key not in tasks:
        tasks[key] = recipe.task.build(data=data, seed=seed)
    job = Job(recipe, tasks[key], out / recipe.folder_name)
    if cell.needs:
        return Prepared(job.recipe, job.task, job.folder, None, None, Given())
    look(job.folder, job.recipe, job.task)
    prepared = prepare(job, weights=False)
    prepared.refuse_unseen()
    return prepared


def cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Returns the bytes that the system could give to new processes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf8").splitlines()
    except OSError:  # not Linux
        return 1 << 62
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
