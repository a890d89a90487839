"""Score against what a model weighs, or against its time where it is physically smaller, with the frontier named."""

from collections.abc import Sequence
from functools import partial

from trainflat.core.formatting import plural
from trainflat.report.elements import MUTED, Axis, Line, Mark, Note, Plot, Rule
from trainflat.report.palette import Palette
from trainflat.report.panels import Line as Runs
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Section
from trainflat.report.sections.frontier import frontier
from trainflat.report.sizes import quartiles, shapes, stored
from trainflat.report.verdict import mean_of, teacher_score
from trainflat.report.words import metric_name, percent


class Tradeoff(Section):
    """Draws one wide plot per panel."""

    title = "Score against size"
    anchor = "tradeoff"
    key = "tradeoff"
    wide = True
    front = True
    size = (8.0, 3.6)

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        found = [(line, line_places(panel, line)) for line in panel.lines]
        places = [(-x, score) for _, models in found for x, score, _ in models]
        if len({x for x, _ in places}) < 2:
            return ()  # models of one size: there is nothing to trade
        best = [(-x, score) for x, score in frontier(places)]
        names = {(x, score): f"{line.optimizer} {percent(p.target)}" for line, each in found for x, score, p in each}
        ends = [x for x, _ in best], [score for _, score in best]
        marks: list[Mark] = [Line(*ends, "frontier", MUTED, 5.0, opacity=0.3), *_teacher(panel)]
        marks += [_line(palette, line, models) for line, models in found if models]
        marks += [Note(x, score, names[x, score]) for x, score in best]
        across = Axis(f"ms, {_shape(panel)}" if shapes(panel) else "Megabytes on disk")
        return [Plot([marks], across, Axis(metric_name(panel.metric, panel.positive)), height=300)]

    def caption(self, panel: Panel) -> str:
        what = (
            "the median of one forward pass"
            if shapes(panel)
            else "megabytes on disk, zeros as packed bits beside the values that are left"
        )
        return (
            f"{panel.scored_on}, against {what}: means over seeds, bars one standard deviation to either side. The "
            "frontier joins models that no other one beats in both."
        )


def line_places(panel: Panel, line: Runs) -> list[tuple[float, float, Point]]:
    """Returns for each stage of a line milliseconds or megabytes, the score, and the stage."""
    weigh = partial(_milliseconds, panel) if shapes(panel) else _megabytes
    found = [(weigh(point), mean_of(point), point) for point in line.points]
    return [(x, score, point) for x, score, point in found if x is not None and score is not None]


def _line(palette: Palette, line: Runs, found: Sequence[tuple[float, float, Point]]) -> Line:
    return Line(
        [x for x, _, _ in found],
        [score for _, score, _ in found],
        line.label,
        f"series-{palette.slot(line.optimizer)}",
        2.5,
        line.variant,
        palette.symbol(line.optimizer, line.variant),
        [point.score.std if point.score else None for _, _, point in found],
        hover="{text}: {y:.1f} at {x:.1f}",
        texts=[point.title for _, _, point in found],
        whiskers=True,
    )


def _teacher(panel: Panel) -> list[Mark]:
    score = teacher_score(panel)
    return [] if score is None else [Rule(score, f"teacher {score:.1f}", level=True)]


def _megabytes(point: Point) -> float | None:
    found = stored(point)
    return found.mean if found else None


def _milliseconds(panel: Panel, point: Point) -> float | None:
    found = quartiles(point, shapes(panel)[-1])
    return found[0] if found else None


def _shape(panel: Panel) -> str:
    batch, length, device, threads = shapes(panel)[-1]
    return f"{batch} × {plural(length, 'token')}, {device}, {plural(threads, 'thread')}"
