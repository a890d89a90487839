"""Draws neutral figures as files, by matplotlib without a display; the same figures give the same bytes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from trainflat.core.files import atomic
from trainflat.report.elements import Axis, Bars, Field, Figure, Heat, Line, Mark, Note, Plot, Points, Rule
from trainflat.report.marks import mark
from trainflat.report.palette import HEAT_LIGHT, LIGHT

KINDS = ("png", "svg")
_GREY, _RULE = "#5A6672", "#D9DFE5"
_COLORS = {"muted": _GREY, **{f"series-{k}": color for k, color in enumerate(LIGHT)}}
_SYMBOLS = ("o", "s", "D", "^", "v", "X")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 3)), (0, (8, 3, 2, 3)))
_HEAT = LinearSegmentedColormap.from_list("heat", HEAT_LIGHT)
_LEVELS = 24
_STYLE = {
    "svg.hashsalt": "trainflat",  # else ids are random
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # no time


def write_figures(figures: Sequence[Figure], folder: Path, kind: str) -> None:
    """Writes each figure as ``png`` or ``svg``, atomically, with its mark."""
    with styled():
        for figure in figures:
            path = folder / f"{figure.file}.{kind}"
            metadata = _METADATA[kind] | {"Source": mark(path)}
            with atomic(path) as temporary:
                draw(figure).savefig(temporary, format=kind, dpi=160, bbox_inches="tight", metadata=metadata)


def draw(figure: Figure) -> Canvas:
    """Draws what is shown first of a figure: its plots in rows, the legend below, the colours' scale at the side."""
    plots = [(plot, marks) for plot in figure.plots if (marks := _shown(figure, plot))]
    columns = max(1, min(len(plots), figure.columns))
    rows = -(-len(plots) // columns)
    width, height = _size(figure, plots)
    canvas = Canvas(figsize=(max(4.5, width * columns), height * rows + 0.7), layout="constrained")
    canvas.suptitle("\n".join(filter(None, (figure.title, *figure.under))), fontsize=10)
    scales = []
    for k, (plot, marks) in enumerate(plots, 1):
        space = {"projection": "3d"} if any(isinstance(each, Field) and each.surface for each in marks) else {}
        axes = canvas.add_subplot(rows, columns, k, **space)
        scales += [image for each in marks if (image := _DRAW[type(each)](axes, each, plot)) is not None]
        _set_axes(axes, plot)
    if scales:
        canvas.colorbar(scales[-1], ax=canvas.axes, label=_scale(plots), fraction=0.03, ticks=MaxNLocator(7))
    _legend(canvas)
    return canvas


def _shown(figure: Figure, plot: Plot) -> Sequence[Mark]:
    return plot.frames[figure.active if len(plot.frames) > 1 else 0] if plot.frames else ()


def _size(figure: Figure, plots: Sequence[tuple[Plot, Sequence[Mark]]]) -> tuple[float, float]:
    """Returns inches of a plot; a map of colours is as large as its cells take."""
    heat = next((each for _, marks in plots for each in marks if isinstance(each, Heat)), None)
    return figure.size if heat is None else (1.6 + 0.28 * len(heat.columns), 0.9 + 0.26 * len(heat.rows))


def _scale(plots: Sequence[tuple[Plot, Sequence[Mark]]]) -> str:
    return next(each.label for _, marks in plots for each in marks if isinstance(each, Heat | Field))


def _legend(canvas: Canvas) -> None:
    """Draws one for all axes, below them, for which the figure grows: it never squeezes what it explains."""
    named = {label: line for axes in canvas.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not named:
        return
    width, height = canvas.get_size_inches()
    columns = max(1, min(len(named), int(width / (0.6 + 0.075 * max(map(len, named))))))
    canvas.set_size_inches(width, height + 0.2 * -(-len(named) // columns) + 0.1)
    canvas.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def _set_axes(axes: Any, plot: Plot) -> None:
    axes.set(title=plot.title, xlabel=plot.x.title, ylabel=plot.y.title)
    for name, axis in (("x", plot.x), ("y", plot.y)):
        _set_axis(axes, name, axis)


def _set_axis(axes: Any, name: str, axis: Axis) -> None:
    limits = getattr(axes, f"set_{name}lim")
    if axis.log:
        getattr(axes, f"set_{name}scale")("log")
        getattr(axes, f"{name}axis").set_major_formatter("{x:.0e}")  # powers would need the markup that names lack
    if axis.low is not None or axis.high is not None:
        limits(axis.low, axis.high)
    elif axis.from_zero:
        limits(min(0.0, getattr(axes, f"get_{name}lim")()[0]))
    if axis.ticks:
        getattr(axes, f"set_{name}ticks")([at for at, _ in axis.ticks], [text for _, text in axis.ticks])


def _line(axes: Any, line: Line, plot: Plot) -> None:
    color, y = _COLORS[line.color], np.array(line.y, dtype=float)  # None becomes NaN, which is left out
    look: dict[str, Any] = {
        "color": color,
        "linestyle": _DASHES[line.dash % len(_DASHES)],
        "linewidth": 0.65 * line.width,
    }
    if line.symbol is not None:
        look |= {"marker": _SYMBOLS[line.symbol], "markersize": 5 if line.label else 3}
    axes.plot(line.x, y, label=line.label or None, drawstyle="steps-post" if line.stepped else "default", **look)
    held = [(x, y - s, y + s) for x, y, s in zip(line.x, y, line.spread, strict=False) if s is not None]
    if held:
        axes.fill_between(*zip(*held, strict=True), color=color, alpha=line.opacity, linewidth=0)


def _points(axes: Any, points: Points, plot: Plot) -> None:
    color = _COLORS[points.color]
    edge = "black" if points.ringed else "white" if points.names else color
    look: dict[str, Any] = {
        "color": color,
        "marker": _SYMBOLS[points.symbol],
        "markeredgecolor": edge,
        "linestyle": "none",
    }
    look |= {"markersize": 0.75 * points.size, "label": points.label or None}
    if points.z:
        if None not in points.z:
            axes.plot(points.x, points.y, points.z, zorder=10, **look)
        return
    errors = list(zip(*points.errors, strict=True)) or None
    axes.errorbar(points.x, points.y, xerr=errors, capsize=2, **look) if errors else axes.plot(
        points.x, points.y, **look
    )
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    for x, y, name in zip(points.x, points.y, points.names, strict=False):
        axes.annotate(name, (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=8, bbox=box)


def _bars(axes: Any, bars: Bars, plot: Plot) -> None:
    beside = [mark for marks in plot.frames for mark in marks if isinstance(mark, Bars)]
    width = 0.8 / len(beside)
    places = np.arange(len(bars.x)) + width * (beside.index(bars) - (len(beside) - 1) / 2)
    errors = [np.zeros(len(bars.y)), np.array(bars.above) - np.array(bars.y)] if bars.above else None
    axes.bar(places, bars.y, width, yerr=errors, color=_COLORS[bars.color], label=bars.label or None, capsize=2)
    axes.set_xticks(range(len(bars.x)), bars.x, rotation=30, ha="right")


def _heat(axes: Any, heat: Heat, plot: Plot) -> Any:
    image = axes.imshow(np.array(heat.values, dtype=float), cmap=_HEAT, vmin=heat.low, vmax=heat.high, aspect="auto")
    axes.set_xticks(range(len(heat.columns)), heat.columns)
    axes.set_yticks(range(len(heat.rows)), heat.rows)
    axes.grid(visible=False)
    return image


def _field(axes: Any, field: Field, plot: Plot) -> Any:
    values = np.array(field.z, dtype=float)
    if field.surface:
        look = {"cmap": _HEAT, "vmin": field.low, "vmax": field.high, "linewidth": 0}
        axes.plot_surface(*np.meshgrid(field.x, field.y), values, **look)
        axes.set_zlabel(field.label)
        return None
    levels = MaxNLocator(_LEVELS).tick_values(field.low, field.high)
    axes.grid(visible=False)
    return axes.contourf(field.x, field.y, np.ma.masked_invalid(values), levels=levels, cmap=_HEAT)


def _rule(axes: Any, rule: Rule, plot: Plot) -> None:
    axes.axvline(rule.x, color=_GREY, linewidth=0.8, linestyle=":", label=rule.text)


def _note(axes: Any, note: Note, plot: Plot) -> None:
    axes.margins(y=0.12)  # room for it over the highest point
    axes.annotate(note.text, (note.x, note.y), (0, 4), textcoords="offset points", ha="center", fontsize=8)


_DRAW: dict[type[Any], Callable[[Any, Any, Plot], Any]] = {
    Line: _line,
    Points: _points,
    Bars: _bars,
    Heat: _heat,
    Field: _field,
    Rule: _rule,
    Note: _note,
}


@contextmanager
def styled() -> Iterator[None]:
    """Applies the package's figure style in the block."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name may hold letters that the font lacks
        yield
