"""Progress as people see it, one live bar on a terminal, plain lines in a log; and tables."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trainflat.cli.lines import say
from trainflat.core.formatting import plural
from trainflat.core.processes import is_first_process
from trainflat.core.progress import Progress as Watcher
from trainflat.records.comparison import Comparison
from trainflat.records.compression import Compression

_SECONDS_BETWEEN_LINES = 30.0  # in a log, where a bar cannot move


class TerminalProgress(Watcher):
    """Draws on standard error, so that standard output holds results only."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.live = sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task: TaskID | None = None
        self.what, self.total, self.last_line = "", 0, 0.0

    def __enter__(self) -> "TerminalProgress":
        if self.live:  # elsewhere rich ends its disabled bar with an empty line, before version 14.3
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(text, markup=False)

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Starts a new bar."""
        self.end()
        self.what, self.total, self.last_line = what, total, time.monotonic()
        self.task = self.bar.add_task(what, total=total, completed=done, note="")
        if done:
            self.say(f"continuing {what} at {done}/{plural(total, 'step')}")
        elif not self.live:
            self.say(f"{what}: {plural(total, 'step')}")

    def advance(self, done: int, note: str = "") -> None:
        """Moves the bar."""
        if self.task is not None:
            self.bar.update(self.task, completed=done, note=note)
        if not self.live and time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.say(f"{self.what}: {done}/{self.total} {note}".rstrip())

    def end(self) -> None:
        """Removes the bar."""
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None


@contextmanager
def progress_bar() -> Iterator[Watcher]:
    """Yields what shows progress; of the processes of torchrun only the first speaks."""
    if not is_first_process():
        yield Watcher()
        return
    with TerminalProgress() as progress:
        yield progress


def print_rows(rows: Sequence[Mapping[str, str]], title: str | None = None) -> None:
    """Prints a table; the first row's keys head the columns."""
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    Console().print(table)


def print_scores(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints the scores; what all rows share stands above them, so that the table fits on a narrow terminal."""
    scores_and_names = {key for key in rows[0] if key.endswith("%")} | {"Optimizer"}
    shared = [k for k in rows[0] if k not in scores_and_names and len({row[k] for row in rows}) == 1]
    say(", ".join(f"{key.lower()} {rows[0][key]}" for key in shared))
    print_rows([{key: value for key, value in row.items() if key not in shared} for row in rows])


def print_comparison(found: Comparison, out: Path) -> None:
    """Writes the files of a comparison, then prints its tables and where the files are."""
    from trainflat.report.comparison import cell_rows, notes, variant_rows, write_comparison

    path = write_comparison(found, out)
    print_rows(variant_rows(found))
    for cell in found.cells:
        print_rows(cell_rows(found, cell), title=cell.name)
    for sentence in [*notes(found), path]:
        say(sentence)


def print_compression(found: Compression) -> None:
    """Prints both models beside each other, and what it took."""
    sides = {"original": found.before, "compressed": found.after}
    print_rows(
        [
            {
                "Model": name,
                found.metric: "–" if side.score is None else f"{side.score:z.2f}",
                "MB": f"{side.bytes / 1e6:.1f}",
                "Parameters": f"{side.parameters:,}",
                f"ms, {found.batch} × {plural(found.length, 'token')}": f"{side.milliseconds:.1f}",
            }
            for name, side in sides.items()
        ]
    )
    gone = found.structure.sparsity
    say(
        f"{found.speedup:.2f} times as fast ({found.speedup_low:.2f} to {found.speedup_high:.2f}), {gone:.0%} of the "
        f"layers' parameters are gone; on {plural(found.after.rows, 'row')} {found.agreed}."
    )
    for note in found.notes:
        say(f"note: {note}")
