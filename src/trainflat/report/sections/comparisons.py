"""Differences between the lines of a panel, paired by seed and by row: dots with intervals, a table and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from trainflat.core.formatting import plural
from trainflat.core.paired import Paired, holm
from trainflat.report.differences import differing
from trainflat.report.elements import Axis, Entry, Mark, Plot, Points, Rule, Sentences, Table
from trainflat.report.options import BASES
from trainflat.report.paired import counted, interval, paired_points, sentence, verdict
from trainflat.report.palette import MARKERS, Palette
from trainflat.report.panels import Line, Panel, Point
from trainflat.report.sections.base import Results, Row, Section, sparsity_axis
from trainflat.report.words import metric_name

ABOUT = (
    "One line's score minus another's, in points, with an interval that holds the true difference in at least 95 of "
    "100 repetitions with other seeds and other rows. Runs are paired by seed, and their rows with each other."
)
_ALL = 4  # lines up to which each is compared with each, and not with the first alone


@dataclass(frozen=True)
class Compared:
    """Holds the difference of two lines at one sparsity, with its p-value adjusted for all of the panel's."""

    one: Line
    other: Line
    point: Point  # of the first
    found: Paired
    adjusted: float

    @property
    def lines(self) -> str:
        """Returns the two labels, subtracted."""
        return f"{self.one.label} − {self.other.label}"

    @property
    def sentence(self) -> str:
        """Says what can and cannot be told apart."""
        return sentence(self.found, self.one.label, self.other.label, self.point.title, self.adjusted)


class Comparisons(Section):
    """Subtracts lines from each other at every sparsity that both reached."""

    title = "Differences between lines"
    anchor = "differences"
    about = ABOUT
    folded = True
    key = "differences"
    size = (5.6, 3.8)

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        found = compared(panel)
        if not found:
            return ()
        pairs = list(dict.fromkeys(each.lines for each in found))
        up = sparsity_axis(panel)
        gap = 0.012 * ((up.high or 0.0) - (up.low or 0.0))
        marks: list[Mark] = [Rule(0.0, "no difference")]
        for k, lines in enumerate(pairs):
            shift = gap * (k - (len(pairs) - 1) / 2)
            marks.append(_dots([each for each in found if each.lines == lines], palette, k, shift))
        across = Axis(f"Difference: {metric_name(panel.metric, panel.positive)}")
        return [Plot([marks], across, up, height=400)]

    def caption(self, panel: Panel) -> str:
        return f"{panel.scored_on}. {ABOUT} {_together(compared(panel))}"

    def tables(self, panel: Panel) -> Sequence[Table]:
        found = compared(panel)
        rows = [
            {
                "Lines": each.lines,
                "Sparsity": each.point.title,
                "Difference": interval(each.found),
                "Over": counted(each.found),
                "p (Holm)": f"{each.adjusted:.2g}",
                "Apart": verdict(each.found, each.one.label, each.adjusted),
            }
            for each in found
        ]
        return [Table(rows, f"Differences. {ABOUT}", _together(found))] if rows else []

    def columns(self, panel: Panel, point: Point) -> Row:
        first, *others = ordered(panel)
        mine = next((line for line in others if any(point is each for each in line.points)), None)
        beside = mine and _beside(first, point)
        found = paired_points(point, beside) if beside else None
        return {
            "difference_to": first.label if found else None,
            "difference": found and found.value,
            "difference_low": found and found.low,
            "difference_high": found and found.high,
            "difference_seeds": found and found.seeds,
            "difference_over": found and found.over,
        }

    def entries(self, results: Results) -> list[Entry]:
        drawn = super().entries(results)
        return [*drawn, *(replace(each, parts=[_sentences(each.panel)]) for each in drawn if each.panel)]


def ordered(panel: Panel) -> list[Line]:
    """Sorts the lines of a panel: plain optimizers first, with which the others are compared."""
    return sorted(panel.lines, key=lambda line: line.optimizer not in BASES)


def compared(panel: Panel) -> list[Compared]:
    """Subtracts each line from each that comes later, or of many lines only the first, at all sparsities of both."""
    lines = ordered(panel)
    pairs = combinations(lines, 2) if len(lines) <= _ALL else ((lines[0], line) for line in lines[1:])
    made = [
        (one, other, point, found)
        for other, one in pairs
        for point in one.points
        if (beside := _beside(other, point)) and (found := paired_points(point, beside))
    ]
    adjusted = holm([found.p for *_, found in made])
    return [Compared(*each, p) for each, p in zip(made, adjusted, strict=True)]


def _beside(line: Line, point: Point) -> Point | None:
    """Returns the stage of another line that has the point's name and sparsity."""
    return next((each for each in line.points if (each.stage, each.target) == (point.stage, point.target)), None)


def _dots(found: Sequence[Compared], palette: Palette, number: int, shift: float) -> Points:
    return Points(
        [each.found.value for each in found],
        [100 * each.point.target + shift for each in found],
        label=found[0].lines,
        color=f"series-{palette.slot(found[0].one.optimizer)}",
        symbol=(palette.symbol(found[0].one.optimizer, 0) + number) % MARKERS,
        size=7,
        errors=[(each.found.value - each.found.low, each.found.high - each.found.value) for each in found],
        hover="{x:.2f}",
    )


def _sentences(panel: Panel) -> Sentences:
    """Writes a sentence per comparison, under each pair of lines the settings in which they differ."""
    said: dict[str, list[str]] = {}
    for each in compared(panel):
        pair = replace(panel, lines=(each.one, each.other))
        said.setdefault(each.lines, [f"{each.lines}: {more}." for more in [differing(pair)] if more]).append(
            f"{each.sentence}."
        )
    return Sentences([text for texts in said.values() for text in (*texts[1:], *texts[:1])], "What can be told apart")


def _together(found: Sequence[Compared]) -> str:
    """Says how many of several differences are none of chance."""
    if len(found) < 2:
        return ""
    alone, left = sum(each.found.significant for each in found), sum(each.adjusted <= 0.05 for each in found)
    return (
        f"Each interval stands for itself. Of {plural(len(found), 'comparison')}, {alone} exclude zero, where chance "
        f"alone would make up to {0.05 * len(found):.1f}; after Holm's correction for all of them, {left} do."
    )
