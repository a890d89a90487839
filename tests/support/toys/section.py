"""A section of the report."""

from collections.abc import Sequence
from typing import Any

from trainflat.report.elements import Table
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Section


class ToySection(Section):
    """Says how many runs there are."""

    title = "Toys"

    def tables(self, panel: Panel) -> Sequence[Table]:
        return [Table([{"Runs": str(len(panel.records))}], "Toys, counted.")]

    def columns(self, panel: Panel, point: Point) -> dict[str, Any]:
        return {"toys": len(panel.records)}
