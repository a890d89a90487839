"""Shows in what lines that are drawn together differ beside the method."""

from collections.abc import Sequence

from trainflat.report.differences import ABOUT, differences
from trainflat.report.elements import Table
from trainflat.report.panels import Panel
from trainflat.report.sections.base import Section


class Settings(Section):
    """Tabulates settings of recipe and machine by line."""

    title = "What else differs"
    anchor = "settings"
    folded = True

    def tables(self, panel: Panel) -> Sequence[Table]:
        return [Table(differences(panel), ABOUT)]
