"""Tables: one row per stage of every line, with scores, sizes and costs."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from trainflat.core.formatting import plural
from trainflat.records.landscape import Landscape
from trainflat.records.run import Latency, Record, Stage
from trainflat.report.differences import ABOUT as ABOUT_DIFFERENCES
from trainflat.report.differences import SETTING, differences
from trainflat.report.flatness import ABOUT, ABOUT_PUBLISHED, flatness_of, flatness_table, measured
from trainflat.report.int8 import ABOUT as ABOUT_INT8
from trainflat.report.int8 import about_published, int8_of, int8_table, kind_slug, kinds, size_of
from trainflat.report.landscape_series import landscape_table
from trainflat.report.notes import MARK, remarks
from trainflat.report.panels import Line, Panel, Point, make_panels
from trainflat.report.published import published, published_sharpness
from trainflat.report.words import DASH, duration, is_formula, megabytes, percent, spread

PLAIN = (
    "Unstructured zeros alone do not speed up dense kernels: a pruned matrix is multiplied like a full one, so latency "
    "stays as it is. What zeros save is storage (one bit per entry and the surviving values), until a kernel or a "
    "structured cut uses them."
)
Row = dict[str, Any]
Measure = Callable[[Record, Stage], float | None]
Shape = tuple[int, int, str, int]  # batch, length, device, threads


def score_rows(records: Iterable[Record]) -> list[Row]:
    """One row per task, model, protocol, optimizer and target sparsity, over seeds; columns as in the CSV.

    ``score_std`` is the sample standard deviation, None for one seed. Scores are in percent, shares in [0, 1], times in
    seconds, latencies in milliseconds. What was not measured is None.
    """
    panels = make_panels(records)
    return [
        _row(panel, line, point) | {"differs_in": _apart(apart, line)}
        for panel, apart in zip(panels, map(differences, panels), strict=True)
        for line in panel.lines
        for point in line.points
    ]


def _apart(rows: Sequence[dict[str, str]], line: Line) -> str | None:
    """The settings in which a line differs from others of its figure, as a recipe has them."""
    return "; ".join(f"{row[SETTING]}={row[line.label]}" for row in rows) or None


def summary_table(records: Iterable[Record], columns: int = 6) -> list[dict[str, str]]:
    """Scores by sparsity in few columns, one row per line of the plots, for a terminal.

    Of many sparsities, ``columns`` evenly chosen ones are shown, always with the lowest and the highest.
    """
    panels = make_panels(records)
    targets = _thinned(sorted({target for panel in panels for target in panel.targets}), columns)
    return [_summary(panel, line, targets) for panel in panels for line in panel.lines]


def caveats(records: Iterable[Record]) -> list[str]:
    """What to know of a summary table: models that learned nothing, and lines that differ in more than the method."""
    return remarks(make_panels(records))


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV with a header; None becomes an empty field, and no text is a formula to a spreadsheet."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([map(_inert, names), *([_inert(row.get(name)) for name in names] for row in rows)])
    return text.getvalue()


def to_markdown(panels: Sequence[Panel], notes: Sequence[str], landscapes: Sequence[Landscape] = ()) -> str:
    """Score and cost tables of every panel, and the figures of loss landscapes, for people."""
    parts = ["# Results", *(f"> {_safe(note)}" for note in notes), *([PLAIN] if panels else [])]
    for panel in panels:
        parts += [f"## {_safe(panel.title)}", f"{_safe(panel.scored_on)}; mean ± standard deviation over seeds."]
        parts += [_markdown(score_table(panel))]
        if rows := differences(panel):
            parts += [ABOUT_DIFFERENCES, _markdown(rows)]
        if rows := flatness_table(panel):
            parts += [f"Flatness. {ABOUT}", _markdown(rows)]
            parts += [ABOUT_PUBLISHED] if published_sharpness(panel) else []
        if rows := int8_table(panel):
            parts += [f"int8. {ABOUT_INT8}", _markdown(rows)]
            parts += [told] if (told := about_published(panel)) else []
        parts += [_markdown(cost_table(panel))]
    if rows := landscape_table(landscapes):
        parts += ["## Landscape", _markdown(rows)]
    return "\n\n".join(parts) + "\n"


def score_table(panel: Panel) -> list[dict[str, str]]:
    """Lines × sparsities, and under them the published figures where they compare."""
    return [
        *(
            {"Optimizer": line.label, "Seeds": str(_seeds(line)), **_scores(line, panel.targets)}
            for line in panel.lines
        ),
        *_published_rows(panel),
    ]


def cost_table(panel: Panel) -> list[dict[str, str]]:
    """What every stage weighs and what it took to train, mean over seeds."""
    named = [(line, point, _row(panel, line, point)) for line in panel.lines for point in line.points]
    return [{"Optimizer": line.label, **_costs(point, row)} for line, point, row in named]


def _row(panel: Panel, line: Line, point: Point) -> Row:
    score = point.score
    return {
        "task": panel.task,
        "data": panel.data,
        "model": panel.model,
        "layers": panel.layers,
        "protocol": panel.protocol,
        "optimizer": line.label,
        "stage": point.stage,
        "target_sparsity": point.target,
        "split": panel.split,
        "metric": panel.metric,
        "partial_data": panel.partial,
        "score_mean": score.mean if score else None,
        "score_std": score.std if score else None,
        "seeds": score.n if score else 0,
        "baseline_mean": _mean(point, lambda _, stage: stage.answers.baseline if stage.answers else None),
        "remark": "; ".join(point.remarks) or None,
        **{name: _mean(point, measure) for name, measure in _MEASURES.items()},
        **_flatness(panel, point),
        **_int8(panel, point),
        **{f"latency_ms_{b}x{t}_{device}_{n}_threads": value for (b, t, device, n), value in _latencies(point).items()},
    }


_MEASURES: dict[str, Measure] = {
    "encoder_sparsity": lambda _, stage: stage.sizes.encoder_sparsity,
    "total_sparsity": lambda _, stage: stage.sizes.total_sparsity,
    "parameters": lambda _, stage: stage.sizes.parameters,
    "nonzero": lambda _, stage: stage.sizes.nonzero,
    "dense_bytes": lambda _, stage: stage.sizes.dense_bytes,
    "bitmask_bytes": lambda _, stage: stage.sizes.bitmask_bytes,
    "packed_bytes": lambda _, stage: stage.sizes.packed_bytes,
    "steps": lambda _, stage: stage.training.steps if stage.training else None,
    "passes": lambda _, stage: stage.training.passes if stage.training else None,
    "train_seconds": lambda _, stage: stage.timing.train_seconds if stage.training else None,
    "evaluate_seconds": lambda _, stage: stage.timing.evaluate_seconds,
}


def _flatness(panel: Panel, point: Point) -> Row:
    found = {name: flatness_of(point, name) for name in measured(panel)}
    return {
        column: value
        for name, each in found.items()
        for column, value in (
            (f"flatness_{name}", each.mean if each else None),
            (f"flatness_{name}_std", each.std if each else None),
        )
    }


def _int8(panel: Panel, point: Point) -> Row:
    row: Row = {}
    for kind in kinds(panel):
        score, size, name = int8_of(point, kind, panel.split, panel.metric), size_of(point, kind), kind_slug(kind)
        row[f"{name}_score_mean"] = score.mean if score else None
        row[f"{name}_score_std"] = score.std if score else None
        row[f"{name}_bytes"] = size.mean if size else None
    return row


def _mean(point: Point, measure: Measure) -> float | None:
    found = point.over_seeds(measure)
    return found.mean if found else None


def _latencies(point: Point) -> dict[Shape, float | None]:
    """Milliseconds by shape and machine part, since other threads or devices are other measurements."""
    shapes = sorted({_shape(each) for _, stage in point.runs for each in stage.timing.latency})
    return {shape: _mean(point, partial(_median, shape)) for shape in shapes}


def _shape(latency: Latency) -> Shape:
    return latency.batch, latency.length, latency.device, latency.threads


def _median(shape: Shape, _: Record, stage: Stage) -> float | None:
    return next((1000 * each.median for each in stage.timing.latency if _shape(each) == shape), None)


def _costs(point: Point, row: Row) -> dict[str, str]:
    def shown(name: str, write: Callable[[float], str]) -> str:
        return DASH if row[name] is None else write(row[name])

    return {
        "Sparsity": percent(point.target),
        "Zeros, encoder": shown("encoder_sparsity", lambda share: f"{100 * share:.1f} %"),
        "Zeros, all": shown("total_sparsity", lambda share: f"{100 * share:.1f} %"),
        "Dense MB": shown("dense_bytes", megabytes),
        "Bits + values MB": shown("bitmask_bytes", megabytes),
        "Packed MB": shown("packed_bytes", megabytes),
        "Passes": shown("passes", lambda count: f"{count:,.0f}"),
        "Training": shown("train_seconds", duration),
        **{
            f"ms, {batch} × {plural(length, 'token')}, {device}, {plural(threads, 'thread')}": DASH
            if value is None
            else f"{value:.2f}"
            for (batch, length, device, threads), value in _latencies(point).items()
        },
    }


def _scores(line: Line, targets: Sequence[float]) -> dict[str, str]:
    at = {point.target: point for point in line.points}
    return {percent(target): _score(at.get(target)) for target in targets}


def _score(point: Point | None) -> str:
    score = point.score if point else None
    if point is None or score is None:
        return DASH
    return spread(score.mean, score.std) + (f" {MARK}" if point.remarks else "")


def _published_rows(panel: Panel) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for figure in published(panel):
        empty = {"Optimizer": figure.label, "Seeds": "published", **{percent(target): DASH for target in panel.targets}}
        rows.setdefault(figure.label, empty)[percent(figure.sparsity)] = spread(figure.mean, figure.std)
    return list(rows.values())


def _summary(panel: Panel, line: Line, targets: Sequence[float]) -> dict[str, str]:
    task = panel.task_title + (" (partial)" if panel.partial else "")
    who = {
        "Task": task,
        "Model": panel.model,
        "Protocol": panel.protocol,
        "Optimizer": line.label,
        "Metric": panel.metric,
    }
    return {**who, "Seeds": str(_seeds(line)), **_scores(line, targets)}


def _seeds(line: Line) -> int:
    return len({record.seed for record in line.records})


def _thinned(values: Sequence[float], count: int) -> list[float]:
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _markdown(table: Sequence[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for row in table for name in row))
    head, *body = (map(_safe, line) for line in [names, *([row.get(name, DASH) for name in names] for row in table)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(names), *body])


def _inert(value: Any) -> Any:
    """An apostrophe before a text makes spreadsheets show it; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # csv puts only the latter in quotation marks
    return f"'{text}" if is_formula(text) else text


def _safe(text: str) -> str:
    """Names are shown, never obeyed: no markup, no new column, no new line, no formula where the table is pasted."""
    formula = is_formula(text)
    for mark, shown in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, shown)
    for mark in "|`[*":
        text = text.replace(mark, f"\\{mark}")
    return ("\\" if formula else "") + " ".join(text.split())
