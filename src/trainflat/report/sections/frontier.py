"""Score against measured speed-up of smaller models, with the frontier, by batch and length."""

from collections.abc import Iterable, Sequence
from functools import partial

from trainflat.core.formatting import plural
from trainflat.records.run import Record, Stage
from trainflat.report.elements import MUTED, Axis, Line, Mark, Plot
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Section
from trainflat.report.words import metric_name

_Shape = tuple[int, int, str, int]  # batch, length, device, threads


class SpeedFrontier(Section):
    """Draws one plot per shape of a batch; only for panels with models that are physically smaller."""

    title = "Score against speed-up"
    key = "frontier"

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        if not any(stage.structure for record in panel.records for stage in record.stages):
            return ()
        return [self._plot(panel, palette, shape) for shape in _shapes(panel)]

    def _plot(self, panel: Panel, palette: Palette, shape: _Shape) -> Plot:
        batch, length, device, threads = shape
        lines: list[Line] = []
        for line in panel.lines:
            found = [
                (x, y) for point in line.points if (x := _speed(point, shape)) and (y := _score(point)) is not None
            ]
            style = (f"series-{palette.slot(line.optimizer)}", 2.5, line.variant)
            lines.append(
                Line(
                    [x for x, _ in found],
                    [y for _, y in found],
                    line.label,
                    *style,
                    palette.symbol(line.optimizer, line.variant),
                    hover="{x:.2f} times as fast: {y:.1f}",
                )
            )
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


def _shapes(panel: Panel) -> list[_Shape]:
    stages = (stage for record in panel.records for stage in record.stages if stage.structure)
    return sorted({(one.batch, one.length, one.device, one.threads) for s in stages for one in s.timing.latency})


def _speed(point: Point, shape: _Shape) -> float | None:
    found = point.over_seeds(partial(_speedup, shape))
    return found.mean if found else None


def _score(point: Point) -> float | None:
    return point.score.mean if point.score else None


def _speedup(shape: _Shape, record: Record, stage: Stage) -> float | None:
    dense = next((one for one in record.stages if one.target_sparsity == 0), None)
    before, after = _median(dense, shape), _median(stage, shape)
    return before / after if before and after else None


def _median(stage: Stage | None, shape: _Shape) -> float | None:
    found = stage.timing.latency if stage else []
    return next((one.median for one in found if (one.batch, one.length, one.device, one.threads) == shape), None)
