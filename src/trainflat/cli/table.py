"""Shows a grid: its plan, and its runs while they go on."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from trainflat.cli.lines import say
from trainflat.core.formatting import duration, plural

if TYPE_CHECKING:
    from trainflat.commands.grid.plan import GridPlan
    from trainflat.commands.grid.schedule import Entry
    from trainflat.core.progress import Progress

_ROWS = 30  # of the live table, running ones first; the title counts all
_SECONDS_BETWEEN_LINES = 30.0  # in a log
_STATES = ("done", "running", "elsewhere", "waiting", "failed")


def print_grid(plan: "GridPlan", workers: int | None, progress: "Progress", *, each: bool) -> None:
    """Prints how many runs there are, what they train and about how long that takes; each run too, if asked for."""
    from trainflat.commands.grid.estimate import training_seconds

    count, threads = plan.fit(workers)
    if each:
        table = Table("Part", "Run", "Folder", "Steps")
        for cell, job, _ in plan.rows:
            table.add_row(cell.part, escape(cell.title), job.folder.name, f"{job.steps:,}")
        Console().print(table)
    said = f"{plan.name}: {plural(len(plan.rows), 'run')}"
    if plan.complete:
        said += f", {plan.complete} complete"
    alike = plan.trainings - len(plan.trained)
    said += f"; {plural(len(plan.trained), 'training')}"
    said += f" ({alike} more are shared)" if alike else ""
    say(f"{said}, {plural(plan.passes, 'pass', 'passes', form=',.0f')}")
    seconds = training_seconds(plan, count, threads, progress)
    told = "could not be estimated: no model is here to time" if seconds is None else f"about {duration(seconds)}"
    say(f"training what is missing, {plural(count, 'run')} at a time with {plural(threads, 'thread')} each: {told}")


@contextmanager
def live_table(name: str) -> Iterator[Callable[[Sequence["Entry"]], None]]:
    """Yields what shows the runs of a grid: a live table on a terminal, lines in a log."""
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty():
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        yield lambda entries: live.update(_table(name, entries))


class _Lines:
    """Prints a line for each run that starts or ends, and now and then how far the running ones are."""

    def __init__(self, console: Console) -> None:
        self.console, self.states, self.last = console, dict[str, str](), time.monotonic()

    def __call__(self, entries: Sequence["Entry"]) -> None:
        for entry in entries:
            before = self.states.get(entry.name, "waiting")
            if entry.state != before:
                self._print(f"{entry.name} ({entry.cell.title}): {entry.state}{_why(entry)}")
        self.states = {entry.name: entry.state for entry in entries}
        if time.monotonic() - self.last > _SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            for entry in entries:
                if entry.state == "running":
                    self._print(f"{entry.name}: {_doing(entry)}")
            self._print(_counts(entries))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _table(name: str, entries: Sequence["Entry"]) -> Table:
    table = Table("Run", "State", "Doing", title=f"{name}: {_counts(entries)}", title_justify="left")
    order = {"running": 0, "failed": 1, "elsewhere": 2, "waiting": 3, "done": 4}
    for entry in sorted(entries, key=lambda one: order[one.state])[:_ROWS]:
        doing = _doing(entry) if entry.state == "running" else entry.reason
        table.add_row(escape(entry.cell.title), entry.state, escape(doing))
    return table


def _counts(entries: Sequence["Entry"]) -> str:
    counts = Counter(str(entry.state) for entry in entries)
    return ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])


def _doing(entry: "Entry") -> str:
    status = entry.status
    done = f" {status.done}/{status.total}" if status.total else ""
    return f"{status.doing or status.said}{done} {status.note}".strip()


def _why(entry: "Entry") -> str:
    return f": {entry.reason}" if entry.reason else ""
