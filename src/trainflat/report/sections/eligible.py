"""Shows the first eligible, the best and the last evaluation of every training under a gate."""

from collections.abc import Mapping, Sequence

from trainflat.records.run import Record, Stage
from trainflat.report.elements import Table
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Section
from trainflat.report.words import DASH, percent

Evaluation = Mapping[str, float]


class Eligible(Section):
    """Tabulates per run the first and the best evaluation that could be the best, and the last of all."""

    title = "Evaluations that could be the best"
    anchor = "eligible"
    about = (
        "Of every training under a gate, with step, score and sparsity: the first evaluation at which the model, as it "
        "would have been pruned then, was as sparse as asked; the best of those, the model that is kept unless the "
        "recipe keeps the last; and the last of all, whether it was one of them or not."
    )
    folded = True

    def tables(self, panel: Panel) -> Sequence[Table]:
        rows = [
            {"Optimizer": line.label, "Stage": point.stage, "Seed": str(record.seed), **row}
            for line in panel.lines
            for point in line.points
            for record, row in _rows(point)
        ]
        return [Table(rows)]


def _rows(point: Point) -> list[tuple[Record, dict[str, str]]]:
    found = [(record, _evaluations(record, stage)) for record, stage in point.runs]
    return [(record, _row(evaluations, _key(record))) for record, evaluations in found if evaluations]


def _row(evaluations: Sequence[Evaluation], key: str) -> dict[str, str]:
    could = [one for one in evaluations if one["eligible"]]
    return {
        "Eligible": f"{len(could)} of {len(evaluations)}",
        "First eligible": _told(could[0], key) if could else DASH,
        "Best eligible": _told(max(could, key=lambda one: one[key]), key) if could else DASH,
        "Last": _told(evaluations[-1], key),
    }


def _told(one: Evaluation, key: str) -> str:
    return f"step {one['step']:g}: {one[key]:.1f} at {percent(one.get('sparsity', 0.0), 1)}"


def _key(record: Record) -> str:
    return f"{record.task.split}/{record.task.metric}"


def _evaluations(record: Record, stage: Stage) -> list[Evaluation]:
    """Returns the evaluations of the main score under a gate; none of other trainings, or of older records."""
    trained = stage.training.evaluations if stage.training else []
    return [one for one in trained if {"eligible", "step", _key(record)} <= one.keys()]
