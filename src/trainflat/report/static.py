"""Draws neutral figures by matplotlib without a display; the same figures give the same bytes.

A file holds a whole figure, a page its plots one by one (``inline``): both are framed here, around the same marks.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from trainflat.core.files import atomic
from trainflat.report.elements import Axis, Bars, Field, Figure, Heat, Line, Mark, Note, Plot, Points, Rule
from trainflat.report.marks import mark
from trainflat.report.palette import GROUND, HEAT_LEVELS, HEAT_LIGHT, INK, LIGHT, MUTED, RULE, heat_scale
from trainflat.report.words import plain

KINDS = ("png", "svg")
_COLORS = {"muted": MUTED, **{f"series-{k}": color for k, color in enumerate(LIGHT)}}
_SYMBOLS = ("o", "s", "D", "^", "v", "X")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 3)), (0, (8, 3, 2, 3)))
_HEAT = ListedColormap(heat_scale(HEAT_LIGHT))
_STYLE = {
    "svg.hashsalt": "trainflat",  # else ids are random
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes a page's font
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,  # grid lines say where a tick is
    "ytick.major.size": 0,
    "legend.frameon": False,
}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # no time
_INCH, _LETTER, _TITLE = 72, 5.8, 17  # points: an inch, a letter of a tick's label, an axis's title
_PAGE_FONT, _EDGE = 10.5, 9  # points: of a page's plots, and their outer edge


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
    canvas.suptitle("\n".join(map(plain, filter(None, (figure.title, *figure.under)))), fontsize=10)
    scales = []
    for k, (plot, marks) in enumerate(plots, 1):
        space = {"projection": "3d"} if any(isinstance(each, Field) and each.surface for each in marks) else {}
        axes = canvas.add_subplot(rows, columns, k, **space)
        scales += [image for each in marks if (image := _DRAW[type(each)](axes, each, plot)) is not None]
        _set_axes(axes, plot)
        axes.set_title(plain(plot.title))
    if scales:
        canvas.colorbar(scales[-1], ax=canvas.axes, label=_scale(plots), fraction=0.03, ticks=MaxNLocator(7))
    _legend(canvas)
    return canvas


def draw_plot(plot: Plot, marks: Sequence[Mark], width: float) -> Canvas:
    """Draws one plot for a page, ``width`` × ``plot.height`` points; a legend and a title are the page's."""
    canvas = Canvas(figsize=(width / _INCH, plot.height / _INCH), facecolor="none")
    axes = canvas.add_axes((0.15, 0.15, 0.8, 0.8), facecolor="none")
    for each in marks:
        _DRAW[type(each)](axes, each, plot)
    _set_axes(axes, plot)
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
        line.set_clip_on(False)  # they end where the axes do
    turned = any(label.get_rotation() for label in axes.get_xticklabels())
    left = _EDGE + _LETTER * _longest(axes.yaxis) + _TITLE * bool(plot.y.title)
    bottom = (_EDGE + _LETTER * _longest(axes.xaxis) / 2 if turned else 2 * _EDGE) + _TITLE * bool(plot.x.title)
    inner = (width - left - 1.5 * _EDGE) / width, (plot.height - bottom - _EDGE) / plot.height
    axes.set_position((left / width, bottom / plot.height, *inner))
    return canvas


def draw_key(found: Line | Points | Bars) -> Canvas:
    """Draws a mark's sample for a legend, 28 × 10 points."""
    canvas = Canvas(figsize=(28 / _INCH, 10 / _INCH), facecolor="none")
    if isinstance(found, Line):
        canvas.add_artist(Line2D([0, 0.5, 1], [0.5] * 3, markevery=[1], **_look(found)))
    else:
        shape = _SYMBOLS[found.symbol] if isinstance(found, Points) else "s"
        canvas.add_artist(Line2D([0.5], [0.5], marker=shape, color=_COLORS[found.color], markersize=7))
    return canvas


def _shown(figure: Figure, plot: Plot) -> Sequence[Mark]:
    return plot.frames[figure.active if len(plot.frames) > 1 else 0] if plot.frames else ()


def _size(figure: Figure, plots: Sequence[tuple[Plot, Sequence[Mark]]]) -> tuple[float, float]:
    """Returns inches of a plot; a map of colours is as large as its cells take."""
    heat = next((each for _, marks in plots for each in marks if isinstance(each, Heat)), None)
    return figure.size if heat is None else (1.6 + 0.28 * len(heat.columns), 0.9 + 0.26 * len(heat.rows))


def _scale(plots: Sequence[tuple[Plot, Sequence[Mark]]]) -> str:
    return plain(next(each.label for _, marks in plots for each in marks if isinstance(each, Heat | Field)))


def _legend(canvas: Canvas) -> None:
    """Draws one for all axes, below them, for which the figure grows: it never squeezes what it explains."""
    named = {label: line for axes in canvas.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not named:
        return
    width, height = canvas.get_size_inches()
    columns = max(1, min(len(named), int(width / (0.6 + 0.075 * max(map(len, named))))))
    canvas.set_size_inches(width, height + 0.2 * -(-len(named) // columns) + 0.1)
    canvas.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def _longest(axis: Any) -> int:
    return max((len(label.get_text()) for label in axis.get_majorticklabels()), default=0)


def _set_axes(axes: Any, plot: Plot) -> None:
    axes.set(xlabel=plain(plot.x.title), ylabel=plain(plot.y.title))
    if any(isinstance(mark, Heat) for marks in plot.frames for mark in marks):
        return  # its columns and rows are the ticks
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
    if axis.step and not axis.log:
        getattr(axes, f"{name}axis").set_major_locator(mpl.ticker.MultipleLocator(axis.step))
    if axis.ticks:
        ticks = [at for at, _ in axis.ticks], [plain(text) for _, text in axis.ticks]
        getattr(axes, f"set_{name}ticks")(*ticks)


def _look(line: Line) -> dict[str, Any]:
    """Returns how a line is drawn, in a plot and in its legend."""
    look = {"color": _COLORS[line.color], "linestyle": _DASHES[line.dash % len(_DASHES)]}
    look |= {"linewidth": 0.65 * line.width}
    if line.symbol is None:
        return look
    return look | {"marker": _SYMBOLS[line.symbol], "markersize": 5 if line.label else 3}


def _line(axes: Any, line: Line, plot: Plot) -> None:
    y = np.array(line.y, dtype=float)  # None becomes NaN, which is left out
    label, style = plain(line.label) or None, "steps-post" if line.stepped else "default"
    (drawn,) = axes.plot(line.x, y, label=label, drawstyle=style, **_look(line))
    _tip(drawn, line, line.texts or [""] * len(y))
    held = [(x, y - s, y + s) for x, y, s in zip(line.x, y, line.spread, strict=False) if s is not None]
    if held and line.whiskers:
        axes.vlines(*zip(*held, strict=True), color=drawn.get_color(), linewidth=1.2)
    elif held:
        x, low, high = zip(*held, strict=True)
        axes.fill([*x, *x[::-1]], [*low, *high[::-1]], color=drawn.get_color(), alpha=line.opacity, linewidth=0)


def _points(axes: Any, points: Points, plot: Plot) -> None:
    color = _COLORS[points.color]
    edge = INK if points.ringed else GROUND if points.names else color
    look: dict[str, Any] = {"color": color, "marker": _SYMBOLS[points.symbol], "markeredgecolor": edge}
    look |= {"linestyle": "none", "markersize": 0.75 * points.size, "label": plain(points.label) or None}
    if points.z:
        if None not in points.z:
            axes.plot(points.x, points.y, points.z, zorder=10, **look)
        return
    if points.errors:
        drawn = axes.errorbar(points.x, points.y, xerr=list(zip(*points.errors, strict=True)), capsize=2, **look)[0]
    else:
        (drawn,) = axes.plot(points.x, points.y, **look)
    _tip(drawn, points, points.names or [""] * len(points.x))
    box = {"facecolor": GROUND, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for x, y, name in zip(points.x, points.y, points.names, strict=False):
        axes.annotate(plain(name), (x, y), (0, 9), textcoords="offset points", ha="center", fontsize="small", bbox=box)


def _bars(axes: Any, bars: Bars, plot: Plot) -> None:
    beside = [mark for marks in plot.frames for mark in marks if isinstance(mark, Bars)]
    width = 0.8 / len(beside)
    places = np.arange(len(bars.x)) + width * (beside.index(bars) - (len(beside) - 1) / 2)
    errors = [np.zeros(len(bars.y)), np.array(bars.above) - np.array(bars.y)] if bars.above else None
    label = plain(bars.label) or None
    look = {"yerr": errors, "color": _COLORS[bars.color], "label": label, "capsize": 2, "ecolor": INK}
    drawn = axes.bar(places, bars.y, width, **look)
    for patch, x, y in zip(drawn, bars.x, bars.y, strict=True):
        patch.tips = [bars.hover.format(x=x, y=y)] if bars.hover else []
    axes.set_xticks(range(len(bars.x)), map(plain, bars.x), rotation=30, ha="right")


def _heat(axes: Any, heat: Heat, plot: Plot) -> Any:
    values = np.ma.masked_invalid(np.array(heat.values, dtype=float))
    look = {"cmap": _HEAT, "vmin": heat.low, "vmax": heat.high, "edgecolors": GROUND, "linewidth": 1}
    cells = axes.pcolormesh(values, clip_on=False, **look)
    for row, column in zip(*np.nonzero(~np.ma.getmaskarray(values)), strict=True):
        value = values[row, column]
        dark = value - heat.low > 0.5 * (heat.high - heat.low)
        place = {"ha": "center", "va": "center_baseline", "color": GROUND if dark else INK, "fontsize": "small"}
        axes.text(column + 0.5, row + 0.5, f"{value:.0f}", **place)
    axes.set_xticks(np.arange(len(heat.columns)) + 0.5, map(plain, heat.columns))
    axes.set_yticks(np.arange(len(heat.rows)) + 0.5, [_short(plain(row)) for row in heat.rows])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return cells


def _field(axes: Any, field: Field, plot: Plot) -> Any:
    values = np.array(field.z, dtype=float)
    if field.surface:
        look = {"cmap": _HEAT, "vmin": field.low, "vmax": field.high, "linewidth": 0}
        axes.plot_surface(*np.meshgrid(field.x, field.y), values, **look)
        axes.set_zlabel(plain(field.label))
        return None
    levels = MaxNLocator(HEAT_LEVELS).tick_values(field.low, field.high)
    axes.grid(visible=False)
    return axes.contourf(field.x, field.y, np.ma.masked_invalid(values), levels=levels, cmap=_HEAT)


def _rule(axes: Any, rule: Rule, plot: Plot) -> None:
    look = {"color": MUTED, "linewidth": 0.8, "linestyle": ":"}
    text = {"color": MUTED, "fontsize": "small", "ha": "right", "va": "bottom", "in_layout": False}
    if rule.level:
        axes.axhline(rule.at, **look)
        axes.text(0.995, rule.at, plain(rule.text), transform=axes.get_yaxis_transform(), **text)
    else:
        axes.axvline(rule.at, **look)
        axes.text(rule.at, 0.02, plain(rule.text), rotation=90, transform=axes.get_xaxis_transform(), **text)


def _note(axes: Any, note: Note, plot: Plot) -> None:
    axes.margins(y=0.12)  # room for it over the highest point
    place = {"textcoords": "offset points", "ha": "center", "fontsize": "small"}
    axes.annotate(plain(note.text), (note.x, note.y), (0, 5), **place)


def _tip(drawn: Any, found: Line | Points, texts: Sequence[str]) -> None:
    """Notes the tooltip of each marker, which a page gives it."""
    label = plain(found.label)
    if found.symbol is None:
        drawn.tips = [label] if label else []
    elif found.hover:
        places = [each for each in zip(found.x, found.y, texts, strict=True) if each[1] is not None]
        said = [found.hover.format(x=x, y=y, text=text) for x, y, text in places]
        drawn.tips = [f"{label}: {each}" if label else each for each in said]


def _short(name: str) -> str:
    return name if len(name) <= 24 else "…" + name[-23:]


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
def styled(*, page: bool = False) -> Iterator[None]:
    """Applies the package's figure style in the block, of files or of a page's plots."""
    with mpl.rc_context(_STYLE | ({"font.size": _PAGE_FONT} if page else {})), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name may hold letters that the font lacks
        yield
