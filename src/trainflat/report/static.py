"""The figures as files, by matplotlib without a display; the same records give the same bytes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from trainflat.core.files import atomic
from trainflat.report.differences import SETTING, differences
from trainflat.report.flatness import comparable, figure_name, flatness_of, measured
from trainflat.report.int8 import drawings
from trainflat.report.int8 import metric as int8_metric
from trainflat.report.marks import mark
from trainflat.report.notes import PARTIAL
from trainflat.report.palette import HEAT_LIGHT, LIGHT, Palette
from trainflat.report.panels import Line, Panel, Point, Statistics
from trainflat.report.published import Figure as Published
from trainflat.report.published import published, reference_sparsity
from trainflat.report.series import CURVES, at, curves, focus, shares_seen, zero_grid
from trainflat.report.words import metric_name, numbered, option, percent, slug

GREY, _RULE = "#5A6672", "#D9DFE5"
SYMBOLS = ("o", "s", "D", "^", "v", "X")
_DASHES = ("-", "--", ":", "-.", (0, (8, 3)), (0, (8, 3, 2, 3)))
_STYLE = {
    "svg.hashsalt": "trainflat",  # else ids are random
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # no time


def write_figures(panels: Sequence[Panel], folder: Path, kind: str) -> list[Path]:
    """Writes scores, flatness, int8, zeros and training curves of every panel, ``png`` or ``svg``, where it has any."""
    palette = Palette(record.optimizer for panel in panels for record in panel.records)
    written = []
    with styled():
        for name, panel in zip(_names(panels), panels, strict=True):
            written.append(save(draw_score(panel, palette), folder / f"score-{name}.{kind}", kind))
            written.append(save(draw_flatness(panel, palette), folder / f"flatness-{name}.{kind}", kind))
            written.append(save(draw_int8(panel, palette), folder / f"int8-{name}.{kind}", kind))
            written.append(save(draw_zeros(panel), folder / f"zeros-{name}.{kind}", kind))
            written.append(save(draw_curves(panel, palette), folder / f"training-{name}.{kind}", kind))
    return [path for path in written if path]


def draw_score(panel: Panel, palette: Palette) -> Figure:
    """Score against sparsity: means, one standard deviation to either side, and published figures."""
    figure, (axes,) = _figure(panel, 1, 5.6, 3.8)
    width = _width(panel)
    reference = reference_sparsity(panel)
    if reference is not None:
        axes.axvline(
            100 * reference, color=GREY, linewidth=0.8, linestyle=":", label=f"reference sparsity {percent(reference)}"
        )
    for each in published(panel):
        _draw_published(axes, each, palette, width)
    for line in panel.lines:
        _draw_line(axes, line, palette, lambda point: point.score)
    axes.set(
        xlabel="Sparsity of the encoder (%)",
        ylabel=metric_name(panel.metric, panel.positive),
        xlim=(-0.08 * width, 1.05 * width),
    )
    _legend(figure)
    return figure


def draw_flatness(panel: Panel, palette: Palette) -> Figure | None:
    """Figures of flatness against sparsity, as :func:`draw_score`."""
    names, width = measured(panel), _width(panel)
    if not names:
        return None
    figure, plots = _figure(panel, len(names), 3.6, 2.9)
    for axes, name in zip(plots, names, strict=True):
        for each in comparable(panel, name):
            _draw_published(axes, each, palette, width)
        for line in panel.lines:
            _draw_line(axes, line, palette, partial(flatness_of, name=name))
        axes.set(title=figure_name(name), xlabel="Sparsity of the encoder (%)", xlim=(-0.08 * width, 1.05 * width))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend(figure)
    return figure


def draw_int8(panel: Panel, palette: Palette) -> Figure | None:
    """Scores in float32 and int8 side by side on one scale, and what int8 costs."""
    shown, width = drawings(panel), _width(panel)
    if not shown:
        return None
    figure, plots = _figure(panel, len(shown), 3.6, 2.9, metric_name(int8_metric(panel), panel.positive))
    for axes, each in zip(plots, shown, strict=True):
        for one in each.published:
            _draw_published(axes, one, palette, width)
        for line in panel.lines:
            _draw_line(axes, line, palette, each.measure)
        axes.set(title=each.title, xlabel="Sparsity of the encoder (%)", xlim=(-0.08 * width, 1.05 * width))
        axes.set_ylim(each.low, each.high)
    _legend(figure)
    return figure


def draw_zeros(panel: Panel) -> Figure | None:
    """Share of zeros per matrix at the sparsity shown first: one map per line, one colour scale for all."""
    target = focus(panel)
    found = [(line, zero_grid(point)) for line in panel.lines if (point := at(line, target))]
    shown = [(line, grid) for line, grid in found if grid.kinds]
    if not shown:
        return None
    figure, maps = _figure(
        panel,
        len(shown),
        1.6 + 0.28 * len(shown[0][1].layers),
        0.9 + 0.26 * len(shown[0][1].kinds),
        f"sparsity {percent(target)}",
    )
    low, high = shares_seen([grid for _, grid in shown])
    colors = LinearSegmentedColormap.from_list("zeros", HEAT_LIGHT)
    for axes, (line, grid) in zip(maps, shown, strict=True):
        shares = [[float("nan") if value is None else value for value in row] for row in grid.shares]
        image = axes.imshow(shares, cmap=colors, vmin=low, vmax=high, aspect="auto")
        axes.set(title=line.label, xlabel="Layer")
        axes.set_xticks(range(len(grid.layers)), grid.layers)
        axes.set_yticks(range(len(grid.kinds)), grid.kinds)
        axes.grid(visible=False)
    figure.colorbar(image, ax=maps, label="Zeros (%)", fraction=0.03)
    return figure


def draw_curves(panel: Panel, palette: Palette) -> Figure | None:
    """What was logged while the model of the sparsity shown first was trained: one line per seed."""
    target = focus(panel)
    points = [(line, point) for line in panel.lines if (point := at(line, target))]
    found = {name: [(line, curve) for line, point in points for curve in curves(point, name)] for name in CURVES}
    logged = [name for name in CURVES if found[name]]
    if not logged:
        return None
    figure, plots = _figure(panel, len(logged), 3.6, 2.9, f"sparsity {percent(target)}")
    for axes, name in zip(plots, logged, strict=True):
        named = set()
        for line, curve in found[name]:
            label = None if line.label in named else line.label
            named.add(line.label)
            axes.plot(curve.steps, curve.values, label=label, linewidth=1.1, **_look(line, palette))
        axes.set(title=CURVES[name], xlabel="Step")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """One for all axes, below them, for which the figure grows: it never squeezes what it explains."""
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not named:
        return
    width, height = figure.get_size_inches()
    columns = max(1, min(len(named), int(width / (0.6 + 0.075 * max(map(len, named))))))
    figure.set_size_inches(width, height + 0.2 * -(-len(named) // columns) + 0.1)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def _draw_line(axes: Any, line: Line, palette: Palette, measure: Callable[[Point], Statistics | None]) -> None:
    scored = [(100 * point.target, found) for point in line.points if (found := measure(point))]
    if not scored:
        return
    look = _look(line, palette)
    marker = SYMBOLS[palette.symbol(line.optimizer, line.variant)]
    axes.plot(
        [x for x, _ in scored], [s.mean for _, s in scored], label=line.label, marker=marker, markersize=5, **look
    )
    spread = [(x, s.mean - s.std, s.mean + s.std) for x, s in scored if s.std is not None]
    if spread:
        axes.fill_between(*zip(*spread, strict=True), color=look["color"], alpha=0.18, linewidth=0)


def _draw_published(axes: Any, figure: Published, palette: Palette, width: float) -> None:
    slot, half = palette.published_slot(figure.optimizer), 0.02 * width
    color = GREY if slot is None else LIGHT[slot]
    middle = 100 * figure.sparsity + 2 * half * figure.beside
    x = [middle - half, middle + half]
    axes.plot(x, [figure.mean] * 2, color=color, linewidth=2, label=figure.label)
    if figure.std is not None:
        axes.fill_between(x, figure.mean - figure.std, figure.mean + figure.std, color=color, alpha=0.3, linewidth=0)


def _look(line: Line, palette: Palette) -> dict[str, Any]:
    return {"color": LIGHT[palette.slot(line.optimizer)], "linestyle": _DASHES[line.variant % len(_DASHES)]}


def _figure(panel: Panel, count: int, width: float, height: float, about: str = "") -> tuple[Figure, list[Any]]:
    """Axes in rows of three, under the panel's title."""
    columns, rows = min(count, 3), -(-count // 3)
    figure = Figure(figsize=(max(4.5, width * columns), height * rows + 0.7), layout="constrained")
    second = "; ".join(part for part in (about, PARTIAL if panel.partial else "") if part)
    third = option("lines differ also in " + ", ".join(apart), 90) if (apart := _apart(panel)) else ""
    figure.suptitle("\n".join(filter(None, (panel.title, second, third))), fontsize=10)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[count:]:
        unused.remove()
    return figure, places[:count]


def _apart(panel: Panel) -> list[str]:
    return [row[SETTING].removeprefix("training.") for row in differences(panel)]


def _width(panel: Panel) -> float:
    return max(100 * max(panel.targets, default=0.0), 10.0)


def _names(panels: Sequence[Panel]) -> list[str]:
    return numbered([slug(f"{panel.task}-{panel.data}-{panel.model}-{panel.protocol}") for panel in panels])


@contextmanager
def styled() -> Iterator[None]:
    """Inside, figures look like those of this package."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name may hold letters that the font lacks
        yield


def save(figure: Figure | None, path: Path, kind: str) -> Path | None:
    """Writes a figure atomically, with its mark; returns the path, or None where there is no figure."""
    if figure is None:
        return None
    with atomic(path) as temporary:
        figure.savefig(
            temporary, format=kind, dpi=160, bbox_inches="tight", metadata=_METADATA[kind] | {"Source": mark(path)}
        )
    return path
