"""Renders loss surfaces that can be turned, on a page of their own: it holds plotly, which draws them."""

import html
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from trainflat.report.elements import Field, Figure, Plot, Points, Shown
from trainflat.report.palette import HEAT_LEVELS
from trainflat.report.words import plain

Data = dict[str, Any]
PAGE = "surfaces.html"
_SCALE = [[k / (HEAT_LEVELS - 1), f"@heat-{k}"] for k in range(HEAT_LEVELS)]


def is_surface(plot: Plot) -> bool:
    """Returns whether a plot holds a surface, which a page shows only where it can be turned."""
    return any(isinstance(mark, Field) and mark.surface for marks in plot.frames for mark in marks)


def with_surfaces(sections: Sequence[Shown]) -> list[Figure]:
    """Returns the figures that have a surface."""
    figures = [figure for section in sections for entry in section.entries for figure in entry.figures]
    return [figure for figure in figures if any(map(is_surface, figure.plots))]


def surface_data(figure: Figure) -> list[Data]:
    """Returns what plotly draws of a figure's surfaces.

    Colours are names of the page's own (``@heat-0``), for which its script puts in those of the light or dark theme.
    """
    return [_surface(plot) for plot in figure.plots if is_surface(plot)]


def plotly() -> Markup:
    """Returns the library's source."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def as_text(label: str) -> str:
    """Escapes a label so that plotly shows it literally; a percent sign before a brace would open a placeholder."""
    return html.escape(plain(label)).replace("%{", "%&#123;")


def _surface(plot: Plot) -> Data:
    (marks,) = plot.frames
    (field,) = (mark for mark in marks if isinstance(mark, Field))
    titles = {"xaxis": plot.x.title, "yaxis": plot.y.title, "zaxis": field.label}
    return {
        "title": plot.title,
        "data": [_sheet(field), *(_pin(mark, field) for mark in marks if isinstance(mark, Points))],
        "axes": {name: as_text(title) for name, title in titles.items()},
    }


def _sheet(field: Field) -> Data:
    return {
        "type": "surface",
        "x": field.x,
        "y": field.y,
        "z": field.z,
        "cmin": field.low,
        "cmax": field.high,
        "colorscale": _SCALE,
        "showscale": False,
        "contours": {"z": {"show": True, "color": "@muted", "width": 1}},
        "hovertemplate": f"%{{x:.3g}}, %{{y:.3g}}: {field.label.lower()} %{{z:.4g}}<extra></extra>",
    }


def _pin(points: Points, field: Field) -> Data:
    """Draws a point on a surface under a pin that carries its name, since basins hide what is in them."""
    (x,), (y,), (z,) = points.x, points.y, points.z
    names = list(map(as_text, points.names))
    return {
        "type": "scatter3d",
        "x": [x, x],
        "y": [y, y],
        "z": [z, field.high if z is None else max(field.high, z)],
        "text": ["", *names],
        "textposition": "top center",
        "textfont": {"color": "@ink", "size": 12},
        "mode": "lines+markers+text",
        "line": {"color": f"@{points.color}", "width": 4},
        "marker": {"color": f"@{points.color}", "size": [6, 0]},
        "hovertemplate": f"{': '.join(names)}: {points.hover}<extra></extra>",
    }
