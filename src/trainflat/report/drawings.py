"""Prepares neutral figures for a page: a drawing per plot and choice, one legend for all plots of a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trainflat.report.elements import Bars, Field, Figure, Heat, Line, Mark, Plot, Points, Shown
from trainflat.report.inline import Sheet
from trainflat.report.palette import HEAT_LEVELS
from trainflat.report.static import draw_key, draw_plot, styled
from trainflat.report.surfaces import is_surface

MOST = 4  # choices of a figure on a page: each is drawn beforehand
_NARROW, _WIDE = 360, 1080  # points: a phone, and a page as wide as it gets


@dataclass(frozen=True)
class Drawn:
    """Holds a plot's drawings, each with the class that says when it is shown."""

    number: int
    title: str
    frames: Sequence[tuple[str, "Markup | Map"]]
    scale: tuple[str, str, str] | None  # of colours: what they stand for, the lowest and the highest value


@dataclass(frozen=True)
class Map:
    """Holds a map of numbers as a table, each with the level of its colour; None is an empty cell."""

    corner: str  # what the columns are
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, int] | None]]]


@dataclass(frozen=True)
class Drawing:
    """Holds what a page shows of a figure."""

    choices: Sequence[tuple[int, str]]  # by number of frame; none where there is nothing to choose
    legend: Sequence[tuple[Markup, str]]
    plots: Sequence[Drawn]


def drawings(sections: Sequence[Shown], sheet: Sheet) -> Mapping[str, Drawing]:
    """Draws the figures of a page, by their ids."""
    with styled(page=True):
        figures = [figure for section in sections for entry in section.entries for figure in entry.figures]
        return {figure.id: _drawing(figure, sheet) for figure in figures}


def _drawing(figure: Figure, sheet: Sheet) -> Drawing:
    kept = _kept(figure)
    plots = [plot for plot in figure.plots if not is_surface(plot)]
    drawn = [_plot(figure, k, plot, kept, sheet) for k, plot in enumerate(plots)]
    choices = [(k, figure.choices[k]) for k in kept] if len(kept) > 1 else []
    return Drawing(choices, _legend(plots, sheet), drawn)


def _kept(figure: Figure) -> list[int]:
    """Returns which of many choices a page has: the first, the last, the one that is shown, and some between."""
    count = len(figure.choices)
    if count <= MOST:
        return list(range(count))
    spread = {round(k * (count - 1) / (MOST - 2)) for k in range(MOST - 1)}
    return sorted({figure.active, *spread})


def _plot(figure: Figure, number: int, plot: Plot, kept: Sequence[int], sheet: Sheet) -> Drawn:
    label = ", ".join(filter(None, (figure.title, plot.title)))

    def drawn(marks: Sequence[Mark], width: float = _NARROW) -> Markup | Map:
        heat = next((mark for mark in marks if isinstance(mark, Heat)), None)
        return sheet.inline(draw_plot(plot, marks, width), label) if heat is None else _map(heat, plot.x.title)

    if len(plot.frames) > 1:
        frames = [(f"f f{k}", drawn(plot.frames[k])) for k in kept if plot.frames[k]]
    elif figure.wide:
        frames = [("wide", drawn(plot.frames[0], _WIDE)), ("narrow", drawn(plot.frames[0]))]
    else:
        frames = [("", drawn(marks)) for marks in plot.frames if marks]
    return Drawn(number, plot.title, frames, _scale(plot))


def _map(heat: Heat, corner: str) -> Map:
    unit = (HEAT_LEVELS - 1) / (heat.high - heat.low)

    def cell(value: float | None) -> tuple[str, int] | None:
        level = 0 if value is None else round((value - heat.low) * unit)
        return None if value is None else (f"{value:.0f}", min(max(level, 0), HEAT_LEVELS - 1))

    return Map(
        corner,
        heat.columns,
        [(row, list(map(cell, values))) for row, values in zip(heat.rows, heat.values, strict=True)],
    )


def _scale(plot: Plot) -> tuple[str, str, str] | None:
    fields = (mark for marks in plot.frames for mark in marks if isinstance(mark, Field))
    return next(((each.label, f"{each.low:.3g}", f"{each.high:.3g}") for each in fields), None)


def _legend(plots: Sequence[Plot], sheet: Sheet) -> list[tuple[Markup, str]]:
    """Returns each label once, with its mark."""
    marks = [mark for plot in plots for frame in plot.frames for mark in frame]
    named = {mark.label: mark for mark in reversed(marks) if isinstance(mark, Line | Points | Bars) and mark.label}
    return [(sheet.inline(draw_key(mark)), label) for label, mark in reversed(named.items())]
