"""Does all runs of a grid: in processes on this machine, or on a Ray cluster."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat.commands.grid.cluster import Cluster
from trainflat.commands.grid.local import Local
from trainflat.commands.grid.plan import GridPlan, plan_grid
from trainflat.commands.grid.schedule import Entry, Executor, Schedule
from trainflat.commands.grid.spec import Grid
from trainflat.records.run import Record

_SECONDS = 0.5  # between two looks
Watch = Callable[[Sequence[Entry]], None]


@dataclass(frozen=True)
class GridResult:
    """Holds what came of a grid.

    Attributes:
        records: Of the runs that are complete, in the order of the grid.
        failed: Why the others are not, by the name of their folder.
    """

    records: list[Record]
    failed: Mapping[str, str]


def grid(
    source: str | Path | Mapping[str, Any] | Grid | GridPlan,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    overrides: Mapping[str, Any] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    watch: Watch | None = None,
) -> GridResult:
    """Does all runs of a grid that are not complete, each in a process of its own; goes on where an earlier call ended.

    A stage that several runs train alike is trained once. A run that fails does not stop the others, and one whose
    process is killed is started again. Two calls may work on one folder at the same time.

    Args:
        source: A grid file, the grid itself, or its plan.
        data: Folder with the tasks' files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        out: The runs' folders are made in here.
        overrides: For every run, by dotted key.
        workers: Runs at a time; by default as many as there are cores and memory for, of those with one thread each.
        ray: Address of a Ray cluster, or ``auto``; None works on this machine alone.
        watch: Is shown all runs twice a second.

    Returns:
        Records, and reasons of those that failed.

    Raises:
        InputError: the grid cannot be read, one of its runs cannot be run, or there is no such cluster.
    """
    plan = source if isinstance(source, GridPlan) else plan_grid(source, data=data, out=out, overrides=overrides)
    count, threads = plan.fit(workers)
    executor: Executor = Local(count, threads) if ray is None else Cluster(ray, threads, plan.memory, workers)
    entries = {job.folder.name: Entry(cell, job.folder, keys) for cell, job, keys in plan.rows}
    schedule = Schedule(entries, executor, None if data is None else data.absolute())
    try:
        while schedule.open:
            schedule.step()
            if watch is not None:
                watch(list(entries.values()))
            time.sleep(_SECONDS)
    finally:
        executor.stop()
    done = [Record.load(entry.folder) for entry in entries.values() if entry.state == "done"]
    return GridResult(done, {entry.name: entry.reason for entry in entries.values() if entry.state == "failed"})
