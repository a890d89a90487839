"""Where the zeros are: their share in every prunable matrix."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainflat.report.elements import Axis, Heat, Plot
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel, Point, at
from trainflat.report.sections.base import Results, Section

_SAME = 0.5  # percent between shares that are one
_KINDS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention out",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
}


class Zeros(Section):
    """One map per line, layers across and kinds of matrices down."""

    title = "Where the zeros are"
    key = "zeros"
    broad = True

    def targets(self, panel: Panel) -> Sequence[float]:
        measured = [target for target in panel.targets if any(_measured(at(line, target)) for line in panel.lines)]
        return [] if _even(panel) else measured

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        shown = [] if _even(panel) else [line for line in panel.lines if any(map(_measured, line.points))]
        frames: list[list[list[Heat]]] = [[] for _ in shown]
        for target in self.targets(panel):
            points = [at(line, target) for line in shown]
            grids = [zero_grid(point) if point is not None else Grid([], [], []) for point in points]
            low, high = shares_seen(grids)
            for k, grid in enumerate(grids):
                frames[k].append([_heat(grid, low, high)] * bool(grid.kinds))
        rows = max((len(heat.rows) for several in frames for marks in several for heat in marks), default=0)
        return [Plot(frames[k], Axis("Layer"), title=line.label, height=60 + 22 * rows) for k, line in enumerate(shown)]

    def caption(self, panel: Panel) -> str:
        return (
            "Share of zeros in every prunable matrix, in percent, mean over seeds. Layers are counted from 0, as in "
            "parameter names; a matrix behind the last layer stands in the last column. Colours span the layers' "
            "values."
        )

    def closing(self, results: Results) -> tuple[str, str]:
        even = [panel.title for panel in results.panels if _even(panel)]
        told = f"Every matrix has the same share of zeros: {'; '.join(even)}."
        return ("No map", told) if even and len(even) < len(results.panels) else ("", "")


@dataclass(frozen=True)
class Grid:
    """Share of zeros per matrix, in percent: kinds of matrices × layers; None where a layer has no such matrix."""

    kinds: list[str]
    layers: list[str]
    shares: list[list[float | None]]


def zero_grid(point: Point) -> Grid:
    """Returns where the zeros of a stage lie, mean over seeds; a matrix outside the layers is in the last column."""
    totals: dict[str, list[int]] = {}
    for _, stage in point.runs:
        for matrix in stage.matrices:
            zeros, entries = totals.get(matrix.name, (0, 0))
            totals[matrix.name] = [zeros + matrix.zeros, entries + matrix.entries]
    places = {name: _place(name) for name in totals}
    layers = sorted({layer for layer, _ in places.values() if layer}) or [(0,)]
    kinds = list(dict.fromkeys([kind for layer, kind in places.values() if layer] + [k for _, k in places.values()]))
    shares: list[list[float | None]] = [[None] * len(layers) for _ in kinds]
    for name, (layer, kind) in places.items():
        zeros, entries = totals[name]
        column = layers.index(layer) if layer else len(layers) - 1
        shares[kinds.index(kind)][column] = 100 * zeros / max(entries, 1)
    return Grid(kinds, [".".join(map(str, layer)) for layer in layers], shares)


def shares_seen(grids: Sequence[Grid]) -> tuple[float, float]:
    """Returns the lowest and highest share inside the layers, in percent, rounded outwards: one colour scale for all.

    A row with a single matrix, such as the pooler, is far off more often than not, and would flatten the rest.
    """
    rows = [[value for value in row if value is not None] for grid in grids for row in grid.shares]
    inside = [value for row in rows if len(row) > 1 for value in row]
    values = inside or [value for row in rows for value in row] or [0.0]
    low, high = min(values) // 1, -(-max(values) // 1)
    return (low, high) if high > low else (low, low + 1)


def _heat(grid: Grid, low: float, high: float) -> Heat:
    return Heat(
        grid.layers,
        grid.kinds,
        grid.shares,
        low,
        high,
        label="Zeros (%)",
        unit=" %",
        hover="layer {x}, {y}: {z:.2f} % zero",
    )


def _even(panel: Panel) -> bool:
    """Returns whether each matrix was cut to the same share, as one that is ranked on its own is: no map is needed."""
    grids = [zero_grid(point) for line in panel.lines for point in line.points if _measured(point)]
    shares = [[value for row in grid.shares for value in row if value is not None] for grid in grids]
    return all(max(values) - min(values) < _SAME for values in shares)


def _measured(point: Point | None) -> bool:
    return point is not None and any(stage.matrices for _, stage in point.runs)


def _place(name: str) -> tuple[tuple[int, ...], str]:
    """Returns the layer numbers in a parameter's name, and its kind.

    Example:
        >>> _place("layer.3.attention.self.query.weight")
        ((3,), 'query')
    """
    path = name.removesuffix(".weight").split(".")
    numbers = [i for i, part in enumerate(path) if re.fullmatch(r"\d+", part)]
    if not numbers:
        return (), ".".join(path[-2:]).removesuffix(".dense")
    kind = ".".join(path[numbers[-1] + 1 :]) or "weight"
    return tuple(int(path[i]) for i in numbers), _KINDS.get(kind, kind.removesuffix(".dense"))
