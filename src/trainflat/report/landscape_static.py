"""The figures of loss landscapes as files, by matplotlib without a display; the same landscapes give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainflat.records.landscape import Landscape, LineRecord, PlaneRecord, SpectrumRecord
from trainflat.report.landscape_series import (
    barrier_bar,
    density_range,
    end_losses,
    head_of,
    loss_range,
    number,
    title_of,
    together,
)
from trainflat.report.notes import PARTIAL
from trainflat.report.palette import HEAT_LIGHT, LIGHT, Palette
from trainflat.report.static import GREY, SYMBOLS, save, styled
from trainflat.report.words import numbered, slug

_LEVELS = 24
_COLORS = LinearSegmentedColormap.from_list("losses", HEAT_LIGHT)


def write_landscapes(landscapes: Sequence[Landscape], folder: Path, kind: str) -> None:
    """Writes a figure for each landscape as ``png`` or ``svg``; a plane under several heads is one figure."""
    entries = together(landscapes)
    names = numbered([slug(f"landscape-{title_of(same[0])}") for same in entries])
    with styled():
        for name, same in zip(names, entries, strict=True):
            save(draw(same), folder / f"{name}.{kind}", kind)


def draw(same: Sequence[Landscape]) -> Figure:
    """One landscape, or one plane under several heads: contours above, surfaces below."""
    first = same[0]
    planes = [each for each in same if isinstance(each, PlaneRecord)]
    figure = Figure(figsize=(max(4.8, 4.4 * len(planes)), 7.4 if planes else 3.4), layout="constrained")
    second = "; ".join(filter(None, (first.measured_on, PARTIAL if first.partial else "")))
    figure.suptitle("\n".join(filter(None, (title_of(first), second))), fontsize=10)
    if isinstance(first, LineRecord):
        _draw_line(figure, first)
    elif isinstance(first, SpectrumRecord):
        _draw_spectrum(figure.subplots(), first)
    else:
        _draw_planes(figure, planes)
    return figure


def _draw_planes(figure: Figure, planes: Sequence[PlaneRecord]) -> None:
    low, high = loss_range(planes)
    columns = len(planes)
    for k, plane in enumerate(planes):
        losses = np.array(plane.losses, dtype=float)  # None becomes NaN, which is left out
        flat = figure.add_subplot(2, columns, k + 1)
        levels = MaxNLocator(_LEVELS).tick_values(low, high)
        image = flat.contourf(plane.x, plane.y, np.ma.masked_invalid(losses), levels=levels, cmap=_COLORS)
        flat.set(title=head_of(plane), xlabel=plane.axes[0], ylabel=plane.axes[1])
        flat.grid(visible=False)
        space: Any = figure.add_subplot(2, columns, columns + k + 1, projection="3d")
        space.plot_surface(*np.meshgrid(plane.x, plane.y), losses, cmap=_COLORS, vmin=low, vmax=high, linewidth=0)
        space.set(xlabel=plane.axes[0], ylabel=plane.axes[1], zlabel="loss")
        _mark_points(flat, space, plane)
    figure.colorbar(image, ax=figure.axes, label="Loss", fraction=0.03, ticks=MaxNLocator(7))


def _mark_points(flat: Any, space: Any, plane: PlaneRecord) -> None:
    palette = Palette(plane.points)
    for name, (x, y) in plane.points.items():
        slot, loss = palette.slot(name), plane.point_losses[name]
        look = {"marker": SYMBOLS[slot], "color": LIGHT[slot], "markeredgecolor": "white", "linestyle": "none"}
        flat.plot([x], [y], markersize=8, **look)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        flat.annotate(name, (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=8, bbox=box)
        if loss is not None:
            space.plot([x], [y], [loss], markersize=6, zorder=10, **look)


def _draw_line(figure: Figure, line: LineRecord) -> None:
    plots = list(figure.subplots(1, 2 if line.scores else 1, squeeze=False).flat)
    losses = np.array(line.losses, dtype=float)
    plots[0].plot(line.positions, losses, color=LIGHT[0], marker="o", markersize=3)
    plots[0].set(ylabel="Loss", xlabel=line.axis)
    if line.ends:
        plots[0].plot([0, 1], np.array(end_losses(line), dtype=float), color=GREY, linewidth=0.8, linestyle=":")
    if bar := barrier_bar(line):
        at, span = bar
        plots[0].plot([at, at], span, color=LIGHT[1], linewidth=2, label=f"barrier {number(line.barrier)}")
        plots[0].legend()
    if line.scores:
        plots[1].plot(line.positions, line.scores, color=LIGHT[2], marker="o", markersize=3)
        plots[1].set(ylabel=line.score_name, xlabel=line.axis)
    if line.ends:
        for axes in plots:
            axes.set_xticks([0, 0.5, 1], [line.ends[0], "0.5", line.ends[1]])
    if line.scores:
        figure.set_size_inches(8.6, 3.4)


def _draw_spectrum(axes: Any, spectrum: SpectrumRecord) -> None:
    low, high = density_range(spectrum)
    density = np.array([value if value > 0 else np.nan for value in spectrum.density])
    axes.plot(spectrum.eigenvalues, density, color=LIGHT[0], linewidth=1.4)
    if spectrum.top:
        axes.plot(spectrum.top, [low * 1.5] * len(spectrum.top), color=LIGHT[1], marker="^", linestyle="none")
    axes.set(yscale="log", ylim=(low, high), xlabel="Eigenvalue of the Hessian", ylabel="Density")
    axes.yaxis.set_major_formatter("{x:.0e}")  # powers would need the markup that names must not have
