"""Score against measured speed-up of smaller models, with the frontier, by batch and length."""

from collections.abc import Iterable, Sequence

from trainflat.core.formatting import plural
from trainflat.report.elements import MUTED, Axis, Line, Mark, Plot
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel
from trainflat.report.sections.base import Section
from trainflat.report.sizes import Shape, shapes, speedup
from trainflat.report.verdict import mean_of
from trainflat.report.words import metric_name


class SpeedFrontier(Section):
    """Draws one plot per shape of a batch; only for panels with models that are physically smaller."""

    title = "Score against speed-up"
    key = "frontier"

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        if not any(stage.structure for record in panel.records for stage in record.stages):
            return ()
        return [self._plot(panel, palette, shape) for shape in shapes(panel)]

    def _plot(self, panel: Panel, palette: Palette, shape: Shape) -> Plot:
        batch, length, device, threads = shape
        lines: list[Line] = []
        for line in panel.lines:
            found = [
                (fast.mean, score)
                for point in line.points
                if (fast := speedup(point, shape)) and (score := mean_of(point)) is not None
            ]
            x, y = [x for x, _ in found], [y for _, y in found]
            style = f"series-{palette.slot(line.optimizer)}", 2.5, line.variant
            symbol = palette.symbol(line.optimizer, line.variant)
            lines.append(Line(x, y, line.label, *style, symbol, hover="{x:.2f} times as fast: {y:.1f}"))
        best = frontier((x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if y is not None)
        marks: list[Mark] = [Line([x for x, _ in best], [y for _, y in best], "frontier", MUTED, 4.0, dash=1), *lines]
        title = f"{batch} × {plural(length, 'token')}, {plural(threads, 'thread')} ({device})"
        return Plot([marks], Axis("Speed-up over the dense model (times)"), _axis(panel), title)

    def caption(self, panel: Panel) -> str:
        return (
            f"{panel.scored_on}, against the time of one forward pass, beside that of the run's own dense model: means "
            "over seeds. The frontier joins models that no other one beats in both. Times of separate processes on a "
            "busy machine differ by more than their medians show; `trainflat bench` times models in turn."
        )


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points that no other beats in both coordinates, by the first one ascending.

    Example:
        >>> frontier([(1, 90), (2, 85), (3, 86), (4, 70)])
        [(1, 90), (3, 86), (4, 70)]
    """
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best[::-1]


def _axis(panel: Panel) -> Axis:
    return Axis(metric_name(panel.metric, panel.positive))
