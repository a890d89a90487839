"""Scores by sparsity: the table, what else differs between its lines, and a summary for a terminal."""

from collections.abc import Iterable, Sequence

from trainflat.records.run import Record
from trainflat.report.differences import SETTING, differences
from trainflat.report.elements import Rows, Table
from trainflat.report.notes import MARK, remarks
from trainflat.report.panels import Line, Panel, Point, make_panels, titles
from trainflat.report.published import published
from trainflat.report.sections.base import Results, Row, Section
from trainflat.report.words import DASH, percent, spread

PLAIN = (
    "Unstructured zeros alone do not speed up dense kernels: a pruned matrix is multiplied like a full one, so latency "
    "stays as it is. What zeros save is storage (one bit per entry and the surviving values), until a kernel or a "
    "structured cut uses them."
)


class Scores(Section):
    """Mean and spread of the main score."""

    title = "Scores"
    front = True
    anchor = "summary"
    about = "Mean ± sample standard deviation over seeds, by sparsity of the encoder."

    def closing(self, results: Results) -> tuple[str, str]:
        return ("Sparse is not fast.", PLAIN) if has_zeros(results.panels) else ("", "")

    def tables(self, panel: Panel) -> Sequence[Table]:
        return [Table(score_table(panel))]

    def columns(self, panel: Panel, point: Point) -> Row:
        score = point.score
        baseline = point.over_seeds(lambda _, stage: stage.answers.baseline if stage.answers else None)
        return {
            "score_mean": score.mean if score else None,
            "score_std": score.std if score else None,
            "seeds": score.n if score else 0,
            "baseline_mean": baseline.mean if baseline else None,
            "remark": "; ".join(point.remarks) or None,
        }


def has_zeros(panels: Iterable[Panel]) -> bool:
    """Returns whether a model was pruned by zeros, and not by making it smaller."""
    stages = (stage for panel in panels for record in panel.records for stage in record.stages)
    return any(stage.target_sparsity and stage.structure is None for stage in stages)


def score_table(panel: Panel) -> Rows:
    """Returns lines × sparsities, and under them the published figures where they compare."""
    head = [
        {"Optimizer": line.label, "Seeds": str(_seeds(line)), **_scores(line, titles([panel]))} for line in panel.lines
    ]
    return head + _published_rows(panel)


def differing_settings(panel: Panel) -> dict[str, str | None]:
    """Returns for each line, by its label, the settings in which it differs from others, as a recipe has them."""
    rows = differences(panel)
    return {line.label: "; ".join(f"{row[SETTING]}={row[line.label]}" for row in rows) or None for line in panel.lines}


def summary_table(records: Iterable[Record], columns: int = 6) -> Rows:
    """Returns scores by sparsity in few columns, one row per line of the plots, for a terminal.

    Of many sparsities, ``columns`` evenly chosen ones are shown, always with the lowest and the highest.
    """
    panels = make_panels(records)
    shown = _thinned(titles(panels), columns)
    return [_summary(panel, line, shown) for panel in panels for line in panel.lines]


def caveats(records: Iterable[Record]) -> list[str]:
    """Says what to know of a summary: models that learned nothing, and lines that differ in more than the method."""
    return remarks(make_panels(records))


def _summary(panel: Panel, line: Line, shown: Sequence[str]) -> dict[str, str]:
    return {
        "Task": panel.task_title + (" (partial)" if panel.partial else ""),
        "Model": panel.model,
        "Protocol": panel.protocol,
        "Optimizer": line.label,
        "Metric": panel.metric,
        "Seeds": str(_seeds(line)),
        **_scores(line, shown),
    }


def _scores(line: Line, shown: Sequence[str]) -> dict[str, str]:
    found = {point.title: point for point in line.points}
    return {title: _score(found.get(title)) for title in shown}


def _score(point: Point | None) -> str:
    score = point.score if point else None
    if point is None or score is None:
        return DASH
    return spread(score.mean, score.std) + (f" {MARK}" if point.remarks else "")


def _published_rows(panel: Panel) -> Rows:
    rows: dict[str, dict[str, str]] = {}
    for figure in published(panel):
        empty = {"Optimizer": figure.label, "Seeds": "published", **dict.fromkeys(titles([panel]), DASH)}
        rows.setdefault(figure.label, empty)[percent(figure.sparsity)] = spread(figure.mean, figure.std)
    return list(rows.values())


def _seeds(line: Line) -> int:
    return len({record.seed for record in line.records})


def _thinned(values: Sequence[str], count: int) -> list[str]:
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
