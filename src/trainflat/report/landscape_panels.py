"""The figures of loss landscapes, as data for plotly; colours and labels are written as in ``web``."""

from collections.abc import Sequence
from math import log10
from typing import Any

from trainflat.records.landscape import Landscape, LineRecord, PlaneRecord, SpectrumRecord
from trainflat.report.landscape_series import (
    barrier_bar,
    caption_of,
    density_range,
    end_losses,
    head_of,
    loss_range,
    number,
    title_of,
    together,
)
from trainflat.report.palette import MARKERS, Palette
from trainflat.report.web import Group, Plot, as_text

Trace = dict[str, Any]
_SCALE = [[0, "@heat-0"], [0.5, "@heat-1"], [1, "@heat-2"]]
_SILENT = {"showlegend": False, "hoverinfo": "skip"}


def landscape_groups(landscapes: Sequence[Landscape]) -> list[Group]:
    """A figure for each landscape; a plane that was measured with several heads is one figure."""
    groups = []
    for k, same in enumerate(together(landscapes)):
        groups.append(Group(f"landscape-{k}", title_of(same[0]), caption_of(same), _plots(same), broad=True))
    return groups


def _plots(same: Sequence[Landscape]) -> list[Plot]:
    first = same[0]
    if isinstance(first, LineRecord):
        return _line_plots(first)
    if isinstance(first, SpectrumRecord):
        return [_spectrum_plot(first)]
    planes = [each for each in same if isinstance(each, PlaneRecord)]
    span = loss_range(planes)
    return [contour_plot(plane, *span) for plane in planes] + [surface_plot(plane, *span) for plane in planes]


def contour_plot(plane: PlaneRecord, low: float, high: float) -> Plot:
    """Lines of equal loss with the models marked; colours span ``low`` to ``high``."""
    levels = _losses(plane) | {
        "type": "contour",
        "zmin": low,
        "zmax": high,
        "ncontours": 24,
        "line": {"width": 0.6, "color": "@ground"},
        "colorbar": {"thickness": 8, "outlinewidth": 0},
    }
    layout = {"xaxis": _axis(plane.axes[0]), "yaxis": _axis(plane.axes[1]), "annotations": _labels(plane)}
    return _plot([levels, *_marks(plane)], layout, 400, _headed("Contours", plane))


def surface_plot(plane: PlaneRecord, low: float, high: float) -> Plot:
    """The same as a surface that the reader turns."""
    sheet = _losses(plane) | {
        "type": "surface",
        "cmin": low,
        "cmax": high,
        "showscale": False,
        "contours": {"z": {"show": True, "color": "@muted", "width": 1}},
    }
    scene = {
        **{
            key: _scene_axis(text) for key, text in zip(("xaxis", "yaxis", "zaxis"), (*plane.axes, "loss"), strict=True)
        },
        "dragmode": "turntable",
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.45, "y": 1.45, "z": 1.3}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }
    hidden = {"visible": False}  # the page gives every figure flat axes
    layout = {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "xaxis": hidden, "yaxis": hidden}
    return _plot([sheet, *_pins(plane, high)], layout, 420, _headed("Surface", plane))


def _losses(plane: PlaneRecord) -> Trace:
    hover = "%{x:.3g}, %{y:.3g}: loss %{z:.4g}<extra></extra>"
    return {"x": plane.x, "y": plane.y, "z": plane.losses, "colorscale": _SCALE, "hovertemplate": hover}


def _marks(plane: PlaneRecord) -> list[Trace]:
    palette, marks = Palette(plane.points), []
    for name, (x, y) in plane.points.items():
        slot = palette.slot(name)
        look = {"color": f"@series-{slot}", "symbol": MARKERS[slot], "size": 11}
        marker = look | {"line": {"color": "@ground", "width": 1.5}}
        marks.append({"x": [x], "y": [y], "mode": "markers", "marker": marker, **_hover(plane, name)})
    return marks


def _pins(plane: PlaneRecord, high: float) -> list[Trace]:
    """Models in space: a point on the surface under a pin that carries the name, since basins hide what is in them."""
    palette, pins = Palette(plane.points), []
    for name, (x, y) in plane.points.items():
        color, loss = f"@series-{palette.slot(name)}", plane.point_losses[name]
        place = {"x": [x, x], "y": [y, y], "z": [loss, high if loss is None else max(high, loss)]}
        label = {"text": ["", as_text(name)], "textposition": "top center", "textfont": {"color": "@ink", "size": 12}}
        look = {"mode": "lines+markers+text", "line": {"color": color, "width": 4}}
        marker = {"color": color, "size": [6, 0]}
        pins.append({"type": "scatter3d", **place, **label, **look, "marker": marker, **_hover(plane, name)})
    return pins


def _hover(plane: PlaneRecord, name: str) -> Trace:
    text = f"{as_text(name)}: loss {number(plane.point_losses[name])}<extra></extra>"
    return {"showlegend": False, "hovertemplate": text}


def _labels(plane: PlaneRecord) -> list[Trace]:
    label = {"showarrow": False, "yshift": 18, "font": {"color": "@ink", "size": 12}, "bgcolor": "@ground/0.85"}
    return [{**label, "x": x, "y": y, "text": as_text(name)} for name, (x, y) in plane.points.items()]


def _line_plots(line: LineRecord) -> list[Plot]:
    layout: dict[str, Any] = {"xaxis": _axis(line.axis), "yaxis": _axis("Loss")}
    data = [_curve(line.positions, line.losses, 0)]
    if line.ends:
        chord = {"x": [0, 1], "y": end_losses(line), "mode": "lines", **_SILENT}
        data.append(chord | {"line": {"color": "@muted", "width": 1, "dash": "dot"}})
        layout["xaxis"] |= {"tickvals": [0, 0.5, 1], "ticktext": [as_text(line.ends[0]), "0.5", as_text(line.ends[1])]}
    if bar := barrier_bar(line):
        at, span = bar
        data.append(
            {"x": [at, at], "y": span, "mode": "lines", "line": {"color": "@series-1", "width": 2.5}, **_SILENT}
        )
        note = {"x": at, "y": span[1], "text": f"barrier {number(line.barrier)}", "showarrow": False, "yshift": 10}
        layout["annotations"] = [note | {"font": {"color": "@ink", "size": 12}}]
    if not line.scores:
        return [_plot(data, layout, 320)]
    below = {"xaxis": layout["xaxis"], "yaxis": _axis(line.score_name)}
    score = _plot([_curve(line.positions, line.scores, 2)], below, 320, line.score_name or "Score")
    return [_plot(data, layout, 320, "Loss"), score]


def _spectrum_plot(spectrum: SpectrumRecord) -> Plot:
    low, high = density_range(spectrum)
    data = [_curve(spectrum.eigenvalues, [value if value > 0 else None for value in spectrum.density], 0, marked=False)]
    if spectrum.top:
        marker = {"color": "@series-1", "size": 9, "symbol": MARKERS[3]}
        place = {"x": spectrum.top, "y": [low * 1.5] * len(spectrum.top), "mode": "markers", "marker": marker}
        data.append({**place, "showlegend": False, "hovertemplate": "eigenvalue %{x:.4g}<extra></extra>"})
    density = _axis("Density") | {"type": "log", "range": [log10(low), log10(high)], "exponentformat": "power"}
    return _plot(data, {"xaxis": _axis("Eigenvalue of the Hessian"), "yaxis": density}, 320)


def _curve(x: Sequence[float], y: Sequence[float | None], slot: int, marked: bool = True) -> Trace:
    look = {"mode": "lines+markers" if marked else "lines", "line": {"color": f"@series-{slot}", "width": 2}}
    hover = "%{x:.3g}: %{y:.4g}<extra></extra>"
    return {"x": x, "y": y, **look, "marker": {"size": 5}, "showlegend": False, "hovertemplate": hover}


def _plot(data: list[Trace], layout: dict[str, Any], height: int, title: str = "") -> Plot:
    return {"height": height, "frames": [{"data": data, "layout": layout}]} | ({"title": title} if title else {})


def _headed(what: str, plane: PlaneRecord) -> str:
    return " · ".join(filter(None, (what, head_of(plane))))


def _axis(text: str) -> dict[str, Any]:
    return {"title": {"text": as_text(text)}}


def _scene_axis(text: str) -> dict[str, Any]:
    rules = {"gridcolor": "@rule", "linecolor": "@muted", "tickcolor": "@muted", "backgroundcolor": "@ground"}
    return {"title": {"text": as_text(text), "font": {"size": 11}}, "color": "@ink", "zeroline": False, **rules}
