"""Shows which of the student's layers learned from which of the teacher's, in layerwise distillation."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainflat.records.run import Stage
from trainflat.report.elements import Table
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Section


class LayerMatches(Section):
    """Tabulates, for every stage, the shares of its matches."""

    title = "Layers that learned from the teacher's"
    anchor = "layers"
    about = (
        "Per stage, over all seeds: with which layer of the student each chosen layer of the teacher was matched, in "
        "percent of the micro-batches. Layers are counted from 1, as in the stage's own model; 0 are the embeddings."
    )
    folded = True

    def tables(self, panel: Panel) -> Sequence[Table]:
        rows = [
            {"Optimizer": line.label, "Target": point.title, "Teacher's layer": layer, "Student's": told}
            for line in panel.lines
            for point in line.points
            for layer, told in shares(point).items()
        ]
        return [Table(rows)]


def shares(point: Point) -> dict[str, str]:
    """Writes for each layer of the teacher the shares of the student's, such as ``{"3": "1: 25 %, 2: 75 %"}``."""
    counts: dict[int, Counter[int]] = {}
    for _, stage in point.runs:
        for layer, row in _matches(stage).items():
            counts.setdefault(int(layer), Counter()).update({int(number): count for number, count in row.items()})
    return {
        str(layer): ", ".join(f"{n}: {100 * k / row.total():.0f} %" for n, k in sorted(row.items()))
        for layer, row in sorted(counts.items())
    }


def _matches(stage: Stage) -> dict[str, Any]:
    features = (stage.training.features if stage.training else None) or {}
    found: dict[str, Any] = features.get("layerwise", {}).get("matches", {})
    return found
