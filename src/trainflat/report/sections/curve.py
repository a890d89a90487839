"""Plots score against sparsity, with published figures and their sparsity where they apply."""

from collections.abc import Sequence

from trainflat.report.elements import Axis, Mark, Plot, Rule
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel
from trainflat.report.published import published, reference_sparsity
from trainflat.report.sections.base import Section, against_sparsity, sparsity_axis
from trainflat.report.verdict import teacher_score
from trainflat.report.words import metric_name


class ScoreCurve(Section):
    """Draws one line per method, with a band of one standard deviation."""

    title = "Score against sparsity"
    key = "score"
    size = (5.6, 3.8)

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        marks = against_sparsity(panel, palette, lambda point: point.score, published(panel))
        wanted = reference_sparsity(panel)
        rule: list[Mark] = []
        if wanted is not None and wanted <= panel.targets[-1]:
            rule = [Rule(100 * wanted, f"reference sparsity {100 * wanted:g} %")]
        teacher = teacher_score(panel)
        if teacher is not None:
            rule.append(Rule(teacher, f"teacher {teacher:.1f}", level=True))
        score = Axis(metric_name(panel.metric, panel.positive))
        return [Plot([[*rule, *marks]], sparsity_axis(panel), score, height=270)]

    def caption(self, panel: Panel) -> str:
        several = any(len({record.seed for record in line.records}) > 1 for line in panel.lines)
        bands = ", shaded bands one standard deviation to either side." if several else "; here every line is one seed."
        said = [f"{panel.scored_on}. Lines are means over seeds{bands}"]
        if published(panel):
            said.append(
                "Short bars are published means ± standard deviations, of the same model, task, metric and protocol."
            )
        if reference_sparsity(panel) is not None:
            said.append("The dotted line is the sparsity at which the papers compare this task.")
        return " ".join(said)
