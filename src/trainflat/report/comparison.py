"""Renders a comparison of ``trainflat bench``: tables for the terminal, and a figure."""

import math
from pathlib import Path

from trainflat.core.files import together
from trainflat.core.formatting import plural
from trainflat.core.margins import Difference
from trainflat.records.comparison import Cell, Comparison, Speedup, save_comparison
from trainflat.report.elements import Axis, Figure, Line, Mark, Plot, Points, Rows
from trainflat.report.marks import refuse_foreign
from trainflat.report.notes import PARTIAL
from trainflat.report.palette import LIGHT, MARKERS
from trainflat.report.static import KINDS, write_figures
from trainflat.report.words import DASH, megabytes, metric_name, task_name

FIGURE = "bench"
NOT_SIGNIFICANT = "not significant"


def write_comparison(found: Comparison, out: Path) -> Path:
    """Writes ``bench.json``, ``bench.png`` and ``bench.svg`` into a folder, all or none; returns the JSON file.

    Raises:
        InputError: the folder cannot be written, or a file in it that is to be replaced is somebody else's.
    """
    with together(out) as place:
        path = save_comparison(found, place)
        for kind in KINDS:
            write_figures([comparison_figure(found)], place, kind)
        refuse_foreign(place, out)
    return out / path.name


def variant_rows(found: Comparison) -> Rows:
    """Returns size, memory and score of every variant, which do not depend on the input."""
    rows = []
    for n, one in enumerate(found.variants):
        row = {"Model": one.model, "Backend": one.backend, "MB on disk": megabytes(one.bytes)}
        row["Peak MB"] = DASH if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}"
        if found.metric is not None:
            row[metric_name(found.metric)] = DASH if one.score is None else f"{one.score:z.2f}"
            row["Over the first"] = _over(found.above(n, 0)) if n else ""
        rows.append(row)
    return rows


def cell_rows(found: Comparison, cell: Cell) -> Rows:
    """Returns latency, throughput and speed-up of every variant in one cell; a star where none surely beats it."""
    best = found.frontier(cell)
    return [
        {
            "Model": one.model,
            "Backend": one.backend,
            "ms": _digits(1e3 * timing.median),
            "Quartiles": f"{_digits(1e3 * timing.low)}–{_digits(1e3 * timing.high)}",
            "Rows/s": _digits(cell.throughput(timing)),
            "Speed-up": _speedup(timing.speedup),
            "Best": "*" if n in best else "",
        }
        for n, (one, timing) in enumerate(zip(found.variants, cell.timings, strict=True))
    ]


def notes(found: Comparison) -> list[str]:
    """Returns the sentences that a reader of the tables must know."""
    first = found.variants[0]
    said = [
        f"Speed-up: over {first.name}, median of {plural(found.rounds, 'round')} with an interval that holds it in "
        f"95 of 100 cases; where that holds 1, it is {NOT_SIGNIFICANT}.",
        f"Best: differs significantly from another in time or {'score' if found.metric else 'size'}, and no other is "
        "significantly better in one of the two and not worse in the other.",
    ]
    if found.metric is not None:
        said.append(
            f"Over the first: points of the score, with a 95 % margin by the rows; where it holds 0, {NOT_SIGNIFICANT}."
        )
    said += [f"{one.name}: {one.remark}." for one in found.variants if one.remark]
    timings = [timing for cell in found.cells for timing in cell.timings]
    if noisy := sum(timing.noisy for timing in timings):
        total = sum(len(timing.samples) for timing in timings)
        said.append(
            f"Other processes used the machine during {noisy} of {plural(total, 'sample')}; repeat it in a quieter "
            "hour."
        )
    if any(timing.speedup is not None and timing.speedup.low is None for timing in timings):
        said.append("6 rounds or more are needed for a significant speed-up.")
    if found.partial:
        said.append(f"Scores: {PARTIAL}.")
    return said


def comparison_figure(found: Comparison) -> Figure:
    """Returns score against latency, or where nothing was scored size against latency: one plot per cell."""
    up = Axis(metric_name(found.metric) if found.metric else "MB on disk")
    plots = [Plot([_marks(found, cell)], Axis("Latency (ms)", low=0), up, cell.name) for cell in found.cells]
    return Figure(FIGURE, FIGURE, _title(found), plots)


def _marks(found: Comparison, cell: Cell) -> list[Mark]:
    best = found.frontier(cell)
    milliseconds = [1e3 * timing.median for timing in cell.timings]
    heights = [_height(found, n) for n in range(len(found.variants))]
    steps = Line(
        [milliseconds[n] for n in best], [heights[n] for n in best], "frontier", width=1.5, dash=2, stepped=True
    )
    return [steps, *(_point(found, cell, n, ringed=n in best) for n in range(len(found.variants)))]


def _point(found: Comparison, cell: Cell, n: int, *, ringed: bool) -> Points:
    timing, slot, ring = cell.timings[n], n % len(LIGHT), n // len(LIGHT)
    return Points(
        [1e3 * timing.median],
        [_height(found, n)],
        label=found.variants[n].name,
        color=f"series-{slot}",
        symbol=(slot + ring) % MARKERS,
        size=12 if ringed else 7,
        errors=[(1e3 * (timing.median - timing.low), 1e3 * (timing.high - timing.median))],
        ringed=ringed,
    )


def _height(found: Comparison, variant: int) -> float:
    one = found.variants[variant]
    return one.bytes / 1e6 if one.score is None else one.score


def _title(found: Comparison) -> str:
    if found.task is None:
        return "Size on disk against latency"
    return "; ".join(filter(None, (f"{task_name(found.task)}, {found.split}", PARTIAL if found.partial else "")))


def _over(above: Difference | None) -> str:
    if above is None:
        return DASH
    return f"{above.value:+z.2f} [{above.low:z.2f}, {above.high:z.2f}]" if above.significant else NOT_SIGNIFICANT


def _speedup(speedup: Speedup | None) -> str:
    if speedup is None:
        return "1"
    if speedup.value is None or speedup.low is None or speedup.high is None:
        return NOT_SIGNIFICANT
    return f"{_digits(speedup.value)}× [{_digits(speedup.low)}, {_digits(speedup.high)}]"


def _digits(value: float) -> str:
    """Formats three significant digits, without an exponent."""
    places = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{places}f}"
