"""Draws neutral figures for the page, as data for plotly.

Colours are written as names of the page's own (``@series-0``, ``@ink/0.15`` with an opacity): its script puts in
those of the light or the dark theme, and again when the reader's system changes. Labels come from records and are
escaped, since plotly reads a subset of HTML.
"""

import html
from collections.abc import Callable, Sequence
from math import log10
from typing import Any

from trainflat.report.elements import Axis, Bars, Field, Figure, Heat, Line, Mark, Note, Plot, Points, Rule
from trainflat.report.palette import DASHES, MARKERS

Data = dict[str, Any]
_SCALE = [[0, "@heat-0"], [0.5, "@heat-1"], [1, "@heat-2"]]
_WIDTH, _LETTER, _KEY, _ROW = 290, 7, 45, 20  # pixels: narrowest column, a letter, a line's sample, a row of names


def figure_data(figure: Figure) -> Data:
    """Returns a figure as the page's script takes it: plots with a frame per choice, and the choice shown first."""
    return {"plots": [_plot(plot) for plot in figure.plots], "active": figure.active}


def plot_height(plot: Plot) -> int:
    """Returns the pixels of a plot with its legend, in the narrowest column; up to three rows of it fit in."""
    return max((_height(plot.height, marks) for marks in plot.frames), default=plot.height)


def as_text(label: str) -> str:
    """Escapes a label so that plotly shows it literally; a percent sign before a brace would open a placeholder."""
    return html.escape(" ".join(label.split())).replace("%{", "%&#123;")


def _height(plot: int, marks: Sequence[Mark]) -> int:
    names = {mark.label for mark in marks if isinstance(mark, Line | Points | Bars) and mark.label}
    if not names:
        return plot
    in_a_row = max(1, _WIDTH // (_KEY + _LETTER * max(map(len, names))))
    return plot + _ROW * max(0, -(-len(names) // in_a_row) - 3)


def _plot(plot: Plot) -> Data:
    return {"title": plot.title, "frames": [_frame(plot, marks) for marks in plot.frames]}


def _frame(plot: Plot, marks: Sequence[Mark]) -> Data:
    data: list[Data] = []
    layout: Data = {"xaxis": _axis(plot.x), "yaxis": _axis(plot.y)}
    named: set[str] = set()
    for mark in marks:
        traces, additions = _DRAW[type(mark)](mark, plot)
        for trace in traces:
            trace["showlegend"] = trace.get("showlegend", True) and "name" in trace and trace["name"] not in named
            named |= {trace["name"]} if trace["showlegend"] else set()
        data += traces
        layout = _merged(layout, additions)
    return {"data": data, "layout": layout}


def _merged(layout: Data, additions: Data) -> Data:
    """Adds to lists and mappings of a layout, and replaces anything else."""
    found = dict(layout)
    for key, value in additions.items():
        before = layout.get(key)
        if isinstance(before, list):
            found[key] = before + value
        else:
            found[key] = before | value if isinstance(before, dict) else value
    return found


def _axis(axis: Axis) -> Data:
    found: Data = {"title": {"text": as_text(axis.title)}} if axis.title else {}
    if axis.low is not None and axis.high is not None:
        found["range"] = [log10(axis.low), log10(axis.high)] if axis.log else [axis.low, axis.high]
    if axis.log:
        found |= {"type": "log", "exponentformat": "power"}
    if axis.ticks:
        found |= {"tickvals": [at for at, _ in axis.ticks], "ticktext": [as_text(text) for _, text in axis.ticks]}
    if axis.step:
        found["dtick"] = axis.step
    return found | ({"rangemode": "tozero"} if axis.from_zero else {})


def _line(line: Line, plot: Plot) -> tuple[list[Data], Data]:
    color, name = f"@{line.color}", as_text(line.label)
    look = {"color": color, "width": line.width, "dash": DASHES[line.dash % len(DASHES)]}
    trace = {"x": line.x, "y": line.y, "line": look, **_named(name), **_hover(name, line.hover)}
    if line.symbol is None:
        trace["mode"] = "lines"
    else:
        marker = {"color": color, "size": 8 if name else 5, "symbol": MARKERS[line.symbol]}
        trace |= {"mode": "lines+markers", "marker": marker}
    if line.texts:
        trace["text"] = list(line.texts)
    if line.stepped:
        look["shape"] = "hv"
    return [*_band(line, name), trace], {}


def _band(line: Line, name: str) -> list[Data]:
    held = [(x, y, s) for x, y, s in zip(line.x, line.y, line.spread, strict=False) if y is not None and s is not None]
    if not held:
        return []
    corners = [(x, y + s) for x, y, s in held] + [(x, y - s) for x, y, s in reversed(held)]
    x, y = zip(*corners, strict=True)
    shape = {"x": x, "y": y, "mode": "lines", "line": {"width": 0}, "fill": "toself"}
    color = f"@{line.color}/{line.opacity:g}"
    return [{**shape, "fillcolor": color, "hoverinfo": "skip", "showlegend": False, "legendgroup": name}]


def _points(points: Points, plot: Plot) -> tuple[list[Data], Data]:
    color, name = f"@{points.color}", as_text(points.label)
    texts = [as_text(each) for each in points.names]
    hover = _hover(": ".join(filter(None, (name, *texts))), points.hover, between=": ")
    if points.z:
        return [_pin(points, plot, color, texts, hover)], {}
    marker = {"color": color, "size": points.size, "symbol": MARKERS[points.symbol]}
    if texts or points.ringed:
        marker["line"] = {"color": "@ground" if texts else "@ink", "width": 1.5}
    trace = {"x": points.x, "y": points.y, "mode": "markers", "marker": marker, **_named(name), **hover}
    if points.errors:
        below, above = ([pair[k] for pair in points.errors] for k in (0, 1))
        trace["error_x"] = {"type": "data", "array": above, "arrayminus": below, "thickness": 1, "width": 2}
    label = {"showarrow": False, "yshift": 18, "font": {"color": "@ink", "size": 12}, "bgcolor": "@ground/0.85"}
    places = zip(points.x, points.y, texts, strict=False)
    return [trace], {"annotations": [{**label, "x": x, "y": y, "text": text} for x, y, text in places]}


def _pin(points: Points, plot: Plot, color: str, texts: Sequence[str], hover: Data) -> Data:
    """Draws a point on a surface under a pin that carries its name, since basins hide what is in them."""
    high = max(mark.high for marks in plot.frames for mark in marks if isinstance(mark, Field))
    (x,), (y,), (z,) = points.x, points.y, points.z
    place = {"x": [x, x], "y": [y, y], "z": [z, high if z is None else max(high, z)]}
    label = {"text": ["", *texts], "textposition": "top center", "textfont": {"color": "@ink", "size": 12}}
    look = {
        "mode": "lines+markers+text",
        "line": {"color": color, "width": 4},
        "marker": {"color": color, "size": [6, 0]},
    }
    return {"type": "scatter3d", **place, **label, **look, **hover}


def _bars(bars: Bars, plot: Plot) -> tuple[list[Data], Data]:
    name = as_text(bars.label)
    errors = [high - y for high, y in zip(bars.above, bars.y, strict=True)] if bars.above else []
    trace = {
        "type": "bar",
        "x": [as_text(each) for each in bars.x],
        "y": bars.y,
        "marker": {"color": f"@{bars.color}"},
        "error_y": {"type": "data", "array": errors, "thickness": 1, "width": 2},
        **_named(name),
        **_hover(name, bars.hover),
    }
    return [trace], {"barmode": "group", "xaxis": {"title": {"text": as_text(plot.x.title)}, "type": "category"}}


def _heat(heat: Heat, plot: Plot) -> tuple[list[Data], Data]:
    rows = [as_text(row) for row in heat.rows]
    cells = {
        "type": "heatmap",
        "x": heat.columns,
        "y": rows,
        "z": heat.values,
        "zmin": heat.low,
        "zmax": heat.high,
        "xgap": 1,
        "ygap": 1,
        "colorscale": _SCALE,
        "colorbar": {"thickness": 8, "outlinewidth": 0, "ticksuffix": heat.unit},
        "texttemplate": "%{z:.0f}",
        "textfont": {"size": 10},
        **_hover("", heat.hover),
    }
    names = {"tickvals": rows, "ticktext": [as_text(_short(row)) for row in heat.rows]}
    layout = {
        "xaxis": {"title": {"text": as_text(plot.x.title)}, "type": "category", "showgrid": False, "tickangle": 0},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False, **names},
        "margin": {"t": 8, "r": 8},
    }
    return [cells], layout


def _field(field: Field, plot: Plot) -> tuple[list[Data], Data]:
    values = {"x": field.x, "y": field.y, "z": field.z, "colorscale": _SCALE}
    values |= _hover("", f"{{x:.3g}}, {{y:.3g}}: {field.label.lower()} {{z:.4g}}")
    if not field.surface:
        lines = {"ncontours": 24, "line": {"width": 0.6, "color": "@ground"}}
        bar = {"colorbar": {"thickness": 8, "outlinewidth": 0}}
        return [values | {"type": "contour", "zmin": field.low, "zmax": field.high, **lines, **bar}], {}
    sheet = {"type": "surface", "cmin": field.low, "cmax": field.high, "showscale": False}
    contours = {"contours": {"z": {"show": True, "color": "@muted", "width": 1}}}
    titles = {"xaxis": plot.x.title, "yaxis": plot.y.title, "zaxis": field.label}
    scene = {
        **{axis: _scene_axis(title) for axis, title in titles.items()},
        "dragmode": "turntable",
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.45, "y": 1.45, "z": 1.3}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }
    flat = {"visible": False}  # the page gives every figure flat axes
    layout = {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "xaxis": flat, "yaxis": flat}
    return [values | sheet | contours], layout


def _scene_axis(text: str) -> Data:
    rules = {"gridcolor": "@rule", "linecolor": "@muted", "tickcolor": "@muted", "backgroundcolor": "@ground"}
    return {"title": {"text": as_text(text), "font": {"size": 11}}, "color": "@ink", "zeroline": False, **rules}


def _rule(rule: Rule, plot: Plot) -> tuple[list[Data], Data]:
    ends = {"type": "line", "xref": "x", "yref": "paper", "x0": rule.x, "x1": rule.x, "y0": 0, "y1": 1}
    shape = {**ends, "layer": "below", "line": {"color": "@muted", "width": 1, "dash": "dot"}}
    place = {"x": rule.x, "y": 0, "yref": "paper", "xanchor": "right", "yanchor": "bottom", "textangle": -90}
    note = {**place, "showarrow": False, "text": as_text(rule.text), "font": {"color": "@muted", "size": 11}}
    return [], {"shapes": [shape], "annotations": [note]}


def _note(note: Note, plot: Plot) -> tuple[list[Data], Data]:
    look = {"showarrow": False, "yshift": 10, "font": {"color": "@ink", "size": 12}}
    return [], {"annotations": [{"x": note.x, "y": note.y, "text": as_text(note.text), **look}]}


def _named(name: str) -> Data:
    return {"name": name, "legendgroup": name} if name else {}


def _hover(name: str, template: str, between: str = "<br>") -> Data:
    """Builds a hover text: the name, then the template with its braces as plotly's."""
    if not template:
        return {"hoverinfo": "skip"}
    told = between.join(filter(None, (name, template.replace("{", "%{"))))
    return {"hovertemplate": f"{told}<extra></extra>"}


def _short(name: str) -> str:
    return name if len(name) <= 24 else "…" + name[-23:]


_DRAW: dict[type[Any], Callable[[Any, Plot], tuple[list[Data], Data]]] = {
    Line: _line,
    Points: _points,
    Bars: _bars,
    Heat: _heat,
    Field: _field,
    Rule: _rule,
    Note: _note,
}
