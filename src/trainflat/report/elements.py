"""Declares what a report consists of, independent of a renderer: tables, facts, figures of plots, axes and marks.

A section (``trainflat.report.sections``) yields these from records. ``static`` draws the figures of files and pages;
``page`` and ``tables`` write the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trainflat.report.panels import Panel

Rows = list[dict[str, str]]  # of a table; the keys head its columns
Values = Sequence[float | None]  # None is a gap
MUTED = "muted"  # the colour of what is no method's own; else ``series-0``, ``series-1``, … of the palette


@dataclass(frozen=True)
class Axis:
    """Describes an axis of a plot; limits that are not given follow from the marks."""

    title: str = ""
    low: float | None = None
    high: float | None = None
    ticks: Sequence[tuple[float, str]] = ()
    step: float | None = None  # between ticks
    from_zero: bool = False
    log: bool = False


@dataclass(frozen=True)
class Line:
    """Joins points by a line, with a band of ``spread`` to either side.

    ``hover`` is the tooltip of a point: ``{x}`` and ``{y}`` stand for its place, ``{text}`` for its text.
    """

    x: Sequence[float]
    y: Values
    label: str = ""  # in the legend, where each label stands once; "" is not in it
    color: str = MUTED
    width: float = 2.0  # pixels
    dash: int = 0  # place in the palette's table
    symbol: int | None = None  # place in the palette's table; None marks no points
    spread: Values = ()
    opacity: float = 0.18  # of the band
    hover: str = ""
    texts: Sequence[str] = ()
    stepped: bool = False
    whiskers: bool = False  # ``spread`` as a bar at each point, in place of a band


@dataclass(frozen=True)
class Points:
    """Draws single points: ``names`` beside them, ``z`` in 3D, ``errors`` as bars along x."""

    x: Sequence[float]
    y: Sequence[float]
    z: Values = ()
    label: str = ""
    color: str = MUTED
    symbol: int = 0
    size: float = 9.0
    names: Sequence[str] = ()
    errors: Sequence[tuple[float, float]] = ()  # below and above
    ringed: bool = False
    hover: str = ""


@dataclass(frozen=True)
class Bars:
    """Holds values by name; several series stand side by side under each name."""

    x: Sequence[str]
    y: Sequence[float]
    above: Sequence[float] = ()  # up to where the error bar reaches, over the value
    label: str = ""
    color: str = MUTED
    hover: str = ""


@dataclass(frozen=True)
class Heat:
    """Shows a matrix of values as colours (heat map); None is an empty cell."""

    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Values]
    low: float
    high: float
    label: str = ""  # of the colours
    unit: str = ""
    hover: str = ""


@dataclass(frozen=True)
class Field:
    """Shows values over a plane, ``z[i][k]`` at ``x[k], y[i]``: as contours, or as a 3D surface."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Values]
    low: float
    high: float
    label: str = ""  # of the values
    surface: bool = False


@dataclass(frozen=True)
class Rule:
    """Draws a dotted line across the plot with a label along it: vertical, or level."""

    at: float
    text: str
    level: bool = False


@dataclass(frozen=True)
class Note:
    """Writes a label above a place."""

    x: float
    y: float
    text: str


Mark = Line | Points | Bars | Heat | Field | Rule | Note


@dataclass(frozen=True)
class Plot:
    """Holds axes and marks: one tuple of marks for each choice of the figure, or a single one."""

    frames: Sequence[Sequence[Mark]]
    x: Axis = Axis()
    y: Axis = Axis()
    title: str = ""
    height: int = 240  # on a page, where it is 360 wide; without the legend


@dataclass(frozen=True)
class Figure:
    """Groups plots that one choice switches together, with a caption."""

    id: str  # on the page
    file: str  # name of the static file, without its ending
    title: str
    plots: Sequence[Plot]
    caption: str = ""
    under: Sequence[str] = ()  # lines below the title in a file, which has no page around it
    choices: Sequence[str] = ()
    active: int = 0  # the choice that is shown first, and in files
    broad: bool = False  # whether plots need more than a third of the page
    wide: bool = False  # whether its plot takes the whole width, where there is one
    columns: int = 3  # of plots in a file
    size: tuple[float, float] = (3.6, 2.9)  # of a plot in a file, in inches


@dataclass(frozen=True)
class Table:
    """Holds rows with a sentence above and one below; on the page a figure's caption has these."""

    rows: Rows
    about: str = ""
    note: str = ""
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Lists names and values in one paragraph."""

    values: dict[str, str]
    title: str = ""


@dataclass(frozen=True)
class Sentences:
    """Lists sentences, such as advice."""

    texts: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Source:
    """Shows preformatted text."""

    text: str
    title: str = ""


Part = Figure | Table | Facts | Sentences | Source


@dataclass(frozen=True)
class Entry:
    """Groups the parts that a section shows of one panel, landscape or run."""

    title: str
    parts: Sequence[Part]
    sub: str = ""  # a line below the title
    partial: bool = False  # whether its data are only a part of the official ones
    panel: Panel | None = None

    @property
    def figures(self) -> list[Figure]:
        """Returns the parts that are figures."""
        return [part for part in self.parts if isinstance(part, Figure)]

    @property
    def tables(self) -> list[Table]:
        """Returns the parts that are tables."""
        return [part for part in self.parts if isinstance(part, Table)]


@dataclass(frozen=True)
class Shown:
    """Holds a section's entries for the renderers."""

    title: str
    entries: Sequence[Entry]
    anchor: str = ""  # on the page; "" is numbered
    about: str = ""  # below the title
    closing: tuple[str, str] = ("", "")  # below all, the first in bold
    folded: bool = False  # whether a reader opens each entry
    opened: bool = False  # whether they stand open at first
    in_files: bool = True  # whether its tables are in the Markdown file
    front: bool = True  # whether it stands open on the page
