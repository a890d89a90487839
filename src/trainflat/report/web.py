"""The figures of the page, as data for plotly.

Colours are written as names of the page's own (``@series-0``, ``@ink/0.15`` with an opacity): its script puts in
those of the light or the dark theme, and again when the reader's system changes. Labels come from records and are
escaped, since plotly reads a subset of HTML.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trainflat.core.formatting import plural
from trainflat.report.flatness import comparable, figure_name, flatness_of, measured
from trainflat.report.int8 import drawings
from trainflat.report.palette import DASHES, MARKERS, Palette
from trainflat.report.panels import Line, Panel, Point, Statistics
from trainflat.report.published import Figure, published, reference_sparsity
from trainflat.report.series import CURVES, Curve, Grid, at, curves, focus, shares_seen, zero_grid
from trainflat.report.words import metric_name, percent, spread

Plot = dict[str, Any]  # title, height and one frame (data, layout) per choice


@dataclass(frozen=True)
class Group:
    """A figure of the page: one or more plots that are switched together, and a sentence on what is seen."""

    id: str
    title: str
    caption: str
    plots: list[Plot]
    choices: list[str] = field(default_factory=list)
    active: int = 0
    broad: bool = False  # plots need more than a third of the page
    rows: list[dict[str, str]] = field(default_factory=list)  # a table under the plots


def score_plot(panel: Panel, palette: Palette) -> Plot:
    """Score against sparsity, with published figures and the reference sparsity where they apply."""
    width = max(100 * max(panel.targets, default=0.0), 10.0)
    bands = _published(published(panel), palette, width)
    lines = [trace for line in panel.lines for trace in _line(line, palette, lambda point: point.score)]
    layout: dict[str, Any] = {
        "xaxis": _sparsities(width),
        "yaxis": {"title": {"text": as_text(metric_name(panel.metric, panel.positive))}},
    }
    reference = reference_sparsity(panel)
    if reference is not None:
        layout |= _reference_line(100 * reference)
    return {"height": _height(400, bands + lines), "frames": [{"data": bands + lines, "layout": layout}]}


def flatness_plots(panel: Panel, palette: Palette) -> list[Plot]:
    """One figure of flatness against sparsity per plot, with published values where they apply."""
    width = max(100 * max(panel.targets, default=0.0), 10.0)
    layout = {"xaxis": _sparsities(width), "yaxis": {"rangemode": "tozero"}}
    plots = []
    for name in measured(panel):
        data = _published(comparable(panel, name), palette, width)
        data += [t for line in panel.lines for t in _line(line, palette, partial(flatness_of, name=name))]
        frames = [{"data": data, "layout": layout}]
        plots.append({"title": figure_name(name), "height": _height(300, data), "frames": frames})
    return plots


def int8_plots(panel: Panel, palette: Palette) -> list[Plot]:
    """Scores in float32 and int8 on one scale, and what int8 costs, against sparsity."""
    width, plots = max(100 * max(panel.targets, default=0.0), 10.0), []
    for each in drawings(panel):
        data = _published(each.published, palette, width)
        data += [trace for line in panel.lines for trace in _line(line, palette, each.measure)]
        shared = {} if each.low is None else {"range": [each.low, each.high]}
        frames = [{"data": data, "layout": {"xaxis": _sparsities(width), "yaxis": shared}}]
        plots.append({"title": each.title, "height": _height(300, data), "frames": frames})
    return plots


def zero_plots(panel: Panel) -> tuple[list[str], int, list[Plot]]:
    """Where the zeros lie: choices of sparsity, the first one to show, and a heat map per line."""
    targets = [target for target in panel.targets if any(_has_matrices(at(line, target)) for line in panel.lines)]
    shown = [line for line in panel.lines if any(_has_matrices(point) for point in line.points)]
    frames: list[list[dict[str, Any]]] = [[] for _ in shown]
    for target in targets:
        grids = [zero_grid(point) if (point := at(line, target)) else Grid([], [], []) for line in shown]
        low, high = shares_seen(grids)
        for k, grid in enumerate(grids):
            frames[k].append(_heat(grid, low, high))
    rows = max((len(frame["data"][0]["y"]) for several in frames for frame in several), default=0)
    plots = [{"title": line.label, "height": 110 + 26 * rows, "frames": frames[k]} for k, line in enumerate(shown)]
    return [percent(target) for target in targets], _first(targets, focus(panel)), plots


def curve_plots(panel: Panel, palette: Palette) -> tuple[list[str], int, list[Plot]]:
    """Training curves: choices of sparsity, the first one to show, and a plot per quantity that some run logged."""
    everything = {
        (quantity, target): _curves(panel, quantity, target, palette) for quantity in CURVES for target in panel.targets
    }
    targets = [target for target in panel.targets if any(everything[quantity, target] for quantity in CURVES)]
    plots = []
    for quantity, name in CURVES.items():
        frames: list[Plot] = [{"data": everything[quantity, target], "layout": _CURVE_LAYOUT} for target in targets]
        if any(frame["data"] for frame in frames):
            height = max(_height(300, frame["data"]) for frame in frames)
            plots.append({"title": name, "height": height, "frames": frames})
    return [percent(target) for target in targets], _first(targets, focus(panel)), plots


def _height(plot: int, data: Sequence[Plot]) -> int:
    """Pixels of a plot with its legend, in the narrowest column; up to three rows of it fit in as they are."""
    names = [trace["name"] for trace in data if "name" in trace and trace.get("showlegend", True)]
    if not names:
        return plot
    in_a_row = max(1, 290 // (45 + 7 * max(map(len, names))))
    return plot + 20 * max(0, -(-len(names) // in_a_row) - 3)


def _line(line: Line, palette: Palette, measure: Callable[[Point], Statistics | None]) -> list[Plot]:
    scored = [(100 * point.target, found) for point in line.points if (found := measure(point))]
    if not scored:
        return []
    color, name = f"@series-{palette.slot(line.optimizer)}", as_text(line.label)
    mean = {
        "x": [x for x, _ in scored],
        "y": [score.mean for _, score in scored],
        "text": [f"{x:g} %: {spread(s.mean, s.std, 2)} ({plural(s.n, 'seed')})" for x, s in scored],
        "hovertemplate": f"{name}<br>%{{text}}<extra></extra>",
        "name": name,
        "legendgroup": name,
        "mode": "lines+markers",
        "line": {"color": color, "width": 2.5, "dash": DASHES[line.variant % len(DASHES)]},
        "marker": {"color": color, "size": 8, "symbol": MARKERS[palette.symbol(line.optimizer, line.variant)]},
    }
    spreads = [(x, score.mean, score.std) for x, score in scored if score.std is not None]
    if not spreads:
        return [mean]
    area = [(x, m + s) for x, m, s in spreads] + [(x, m - s) for x, m, s in reversed(spreads)]
    return [_area(area, f"{color}/0.18", legendgroup=name), mean]


def _sparsities(width: float) -> dict[str, Any]:
    return {
        "title": {"text": "Sparsity of the encoder (%)"},
        "range": [-0.08 * width, 1.05 * width],
        "dtick": 20 if width > 40 else 5,
    }


def _published(figures: Sequence[Figure], palette: Palette, width: float) -> list[Plot]:
    named = [figure.label for figure in figures]
    return [
        trace
        for k, figure in enumerate(figures)
        for trace in _bar(figure, palette, width, showlegend=figure.label not in named[:k])
    ]


def _bar(figure: Figure, palette: Palette, width: float, *, showlegend: bool) -> list[Plot]:
    """A short bar at the figure's sparsity: mean ± standard deviation."""
    slot = palette.published_slot(figure.optimizer)
    color = "@muted" if slot is None else f"@series-{slot}"
    half = 0.02 * width
    middle = 100 * figure.sparsity + 2 * half * figure.beside
    low, high = middle - half, middle + half
    mean = {
        "x": [low, high],
        "y": [figure.mean, figure.mean],
        "mode": "lines",
        "line": {"color": color, "width": 3},
        "name": as_text(figure.label),
        "legendgroup": figure.label,
        "showlegend": showlegend,
        "hovertemplate": f"{as_text(figure.label)}<br>published: {spread(figure.mean, figure.std)}<extra></extra>",
    }
    if figure.std is None:
        return [mean]
    top, bottom = figure.mean + figure.std, figure.mean - figure.std
    return [
        _area([(low, top), (high, top), (high, bottom), (low, bottom)], f"{color}/0.3", legendgroup=figure.label),
        mean,
    ]


def _area(corners: Sequence[tuple[float, float]], color: str, **options: Any) -> Plot:
    x, y = zip(*corners, strict=True)
    shape = {"x": x, "y": y, "mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": color}
    return {**shape, "hoverinfo": "skip", "showlegend": False, **options}


def _reference_line(at_percent: float) -> dict[str, Any]:
    line = {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": at_percent,
        "x1": at_percent,
        "y0": 0,
        "y1": 1,
        "layer": "below",
    }
    note = {
        "x": at_percent,
        "y": 0,
        "yref": "paper",
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "textangle": -90,
    }
    return {
        "shapes": [line | {"line": {"color": "@muted", "width": 1, "dash": "dot"}}],
        "annotations": [
            note | {"text": f"reference sparsity {at_percent:g} %", "font": {"color": "@muted", "size": 11}}
        ],
    }


def _heat(grid: Grid, low: float, high: float) -> dict[str, Any]:
    cells = {
        "type": "heatmap",
        "x": grid.layers,
        "y": [as_text(kind) for kind in grid.kinds],
        "z": grid.shares,
        "zmin": low,
        "zmax": high,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "@heat-0"], [0.5, "@heat-1"], [1, "@heat-2"]],
        "colorbar": {"thickness": 8, "outlinewidth": 0, "ticksuffix": " %"},
        "texttemplate": "%{z:.0f}",
        "textfont": {"size": 10},
        "hovertemplate": "layer %{x}, %{y}: %{z:.2f} % zero<extra></extra>",
    }
    names = {"tickvals": cells["y"], "ticktext": [as_text(_short(kind)) for kind in grid.kinds]}
    layout = {
        "xaxis": {"title": {"text": "Layer"}, "type": "category", "showgrid": False, "tickangle": 0},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False, **names},
        "margin": {"t": 8, "r": 8},
    }
    return {"data": [cells], "layout": layout}


def _curves(panel: Panel, quantity: str, target: float, palette: Palette) -> list[Plot]:
    found = [(line, curve) for line in panel.lines if (point := at(line, target)) for curve in curves(point, quantity)]
    firsts = {line.label: curve for line, curve in reversed(found)}
    return [_curve(line, curve, palette, showlegend=firsts[line.label] is curve) for line, curve in found]


def _curve(line: Line, curve: Curve, palette: Palette, showlegend: bool) -> Plot:
    color, name = f"@series-{palette.slot(line.optimizer)}", as_text(line.label)
    return {
        "x": curve.steps,
        "y": curve.values,
        "name": name,
        "legendgroup": name,
        "showlegend": showlegend,
        "mode": "lines" if len(curve.steps) > 3 else "lines+markers",
        "line": {"color": color, "width": 1.5, "dash": DASHES[line.variant % len(DASHES)]},
        "hovertemplate": f"{name}, seed {curve.seed}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    }


_CURVE_LAYOUT = {"xaxis": {"title": {"text": "Step"}}, "yaxis": {"rangemode": "tozero"}}


def _short(name: str) -> str:
    return name if len(name) <= 24 else "…" + name[-23:]


def _has_matrices(point: Point | None) -> bool:
    return point is not None and any(stage.matrices for _, stage in point.runs)


def _first(targets: Sequence[float], wanted: float) -> int:
    return min(range(len(targets)), key=lambda k: abs(targets[k] - wanted), default=0)


def as_text(label: str) -> str:
    """As plotly shows it literally; a percent sign before a brace would open a placeholder."""
    return html.escape(" ".join(label.split())).replace("%{", "%&#123;")
