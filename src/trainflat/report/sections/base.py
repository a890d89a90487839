"""Defines the base class of sections, and the plots against sparsity that several share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trainflat.core.formatting import plural
from trainflat.records.landscape import Landscape
from trainflat.records.run import Record
from trainflat.report.differences import SETTING, differences
from trainflat.report.elements import MUTED, Axis, Entry, Figure, Line, Mark, Part, Plot, Shown, Table
from trainflat.report.notes import PARTIAL
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel, Point, Statistics, make_panels
from trainflat.report.published import Figure as Published
from trainflat.report.published import reference_sparsity
from trainflat.report.verdict import parting
from trainflat.report.words import numbered, option, percent, slug, spread

Row = dict[str, Any]  # of the CSV


@dataclass(frozen=True)
class Results:
    """Holds the content of a report: panels of comparable runs, and loss landscapes."""

    panels: Sequence[Panel]
    landscapes: Sequence[Landscape]
    palette: Palette
    names: Sequence[str]  # of the panels, as files are called

    @classmethod
    def of(cls, records: Iterable[Record], landscapes: Sequence[Landscape] = ()) -> "Results":
        """Puts records in order; the same records give the same results."""
        panels = make_panels(records)
        palette = Palette(record.optimizer for panel in panels for record in panel.records)
        slugs = [slug(f"{panel.task}-{panel.data}-{panel.model}-{panel.protocol}") for panel in panels]
        return cls(panels, landscapes, palette, numbered(slugs))


class Section:
    """Shows one thing: a figure, tables or both of every panel.

    Most sections say ``title`` and what of ``plots``, ``tables`` and ``columns`` they have; one that is not about
    panels has its own ``entries``. A section stands in ``SECTIONS``, and is then on the page and among the files.

    Attributes:
        title: Heading on the page.
        anchor: Its place in the page's address; numbered where there is none.
        about: A paragraph below the heading.
        key: Of its figures on the page: ``key-0`` is the first panel's.
        file: Its figures' files begin with this, or with ``key`` where it is empty.
        broad: Whether plots need more than a third of the page.
        wide: Whether its plot takes the whole width.
        size: Of a plot in a file, in inches.
        in_files: Whether its tables are in the Markdown file.
        front: Whether it stands open on the page.
    """

    title = ""
    anchor = ""
    about = ""
    folded = False
    key = ""
    file = ""
    broad = False
    wide = False
    size = (3.6, 2.9)
    in_files = True
    front = False

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        """Returns the figure of a panel; each plot has a frame for each of ``targets``, or one."""
        return ()

    def targets(self, panel: Panel) -> Sequence[float]:
        """Returns the sparsities that a reader chooses from."""
        return ()

    def caption(self, panel: Panel) -> str:
        """Says what is seen in the figure."""
        return ""

    def under(self, panel: Panel) -> str:
        """Says below the title of a file what its plots do not say themselves."""
        return ""

    def tables(self, panel: Panel) -> Sequence[Table]:
        """Returns the tables of a panel."""
        return ()

    def columns(self, panel: Panel, point: Point) -> Row:
        """Returns what the section adds to the row of a point in the CSV."""
        return {}

    def closing(self, results: Results) -> tuple[str, str]:
        """Returns words in bold, and a paragraph behind them, below all."""
        return "", ""

    def entries(self, results: Results) -> list[Entry]:
        """Returns what is shown of each panel; nothing of panels that have nothing to show."""
        found = [self._entry(results, k) for k in range(len(results.panels))]
        return [entry for entry in found if entry.parts]

    def show(self, results: Results) -> Shown:
        """Returns the section as renderers take it."""
        return Shown(
            self.title,
            self.entries(results),
            self.anchor,
            self.about,
            self.closing(results),
            self.folded,
            opened=len(results.panels) <= _OPENED and self.in_files,
            in_files=self.in_files,
            front=self.front,
        )

    def _entry(self, results: Results, k: int) -> Entry:
        panel = results.panels[k]
        plots = self.plots(panel, results.palette)
        tables = [table for table in self.tables(panel) if table.rows]
        parts: list[Part] = [*([self._figure(results, k, plots)] if plots else []), *tables]
        return Entry(panel.title, parts, panel.scored_on, panel.partial, panel)

    def _figure(self, results: Results, k: int, plots: Sequence[Plot]) -> Figure:
        panel, targets = results.panels[k], self.targets(results.panels[k])
        active = min(range(len(targets)), key=lambda i: abs(targets[i] - focus(panel)), default=0)
        chosen = f"sparsity {percent(targets[active])}" if targets else ""
        differing = ", ".join(row[SETTING].removeprefix("training.") for row in differences(panel))
        under = "; ".join(filter(None, (self.under(panel), chosen, PARTIAL if panel.partial else "")))
        return Figure(
            f"{self.key}-{k}",
            f"{self.file or self.key}-{results.names[k]}",
            panel.title,
            plots,
            marked(self.caption(panel), partial=panel.partial),
            [under, option(f"lines differ also in {differing}", 90) if differing else ""],
            list(map(percent, targets)),
            active,
            self.broad,
            self.wide,
            size=self.size,
        )


_OPENED = 3  # panels up to which folded tables stand open


def marked(caption: str, *, partial: bool) -> str:
    """Adds to a caption that its data are only a part of the official ones, where they are."""
    return f"{caption} {PARTIAL[0].upper()}{PARTIAL[1:]}." if partial else caption


def focus(panel: Panel) -> float:
    """Returns the sparsity that is shown first: where methods part, or of one alone the nearest to the papers'."""
    wanted, targets = reference_sparsity(panel), panel.targets
    if len(panel.lines) > 1 or wanted is None:
        found = parting(panel)
        return targets[-1] if found is None else found
    return min(targets, key=lambda target: (abs(target - wanted), target))


def sparsity_axis(panel: Panel) -> Axis:
    """Returns the axis of sparsities in percent, with room for the first and the last marker.

    A single one is no axis: there the lines stand side by side, as ``against_sparsity`` puts them.
    """
    if len(panel.targets) == 1:
        last = len(panel.lines) - 0.5
        return Axis("Sparsity of the encoder", -0.5, last, [((last - 0.5) / 2, percent(panel.targets[0]))])
    width = _width(panel)
    step = 20 if width > 40 else 5
    return Axis("Sparsity of the encoder (%)", -0.08 * width, 1.05 * width, step=step)


def against_sparsity(
    panel: Panel,
    palette: Palette,
    measure: Callable[[Point], Statistics | None],
    published: Sequence[Published] = (),
) -> list[Mark]:
    """Draws published figures as short bars, and a measure of every line of a panel over them.

    At a single sparsity lines are dots with intervals.
    """
    alone = len(panel.targets) == 1
    bars: list[Mark] = [_bar(figure, palette, panel) for figure in published]
    lines: list[Mark] = []
    for k, line in enumerate(panel.lines):
        found = [(100 * point.target, value) for point in line.points if (value := measure(point))]
        texts = [f"{x:g} %: {spread(s.mean, s.std, 2)} ({plural(s.n, 'seed')})" for x, s in found]
        if found:
            mean = Line(
                [k if alone else x for x, _ in found],
                [value.mean for _, value in found],
                line.label,
                f"series-{palette.slot(line.optimizer)}",
                2.5,
                line.variant,
                palette.symbol(line.optimizer, line.variant),
                [value.std for _, value in found],
                hover="{text}",
                texts=texts,
                whiskers=alone,
            )
            lines.append(mean)
    return bars + lines


def _bar(figure: Published, palette: Palette, panel: Panel) -> Line:
    """Returns a published mean ± standard deviation at its sparsity."""
    slot, half = palette.published_slot(figure.optimizer), 0.02 * _width(panel)
    middle = 100 * figure.sparsity + 2 * half * figure.beside
    ends = [middle - half, middle + half]
    if len(panel.targets) == 1:  # no axis: across all lines
        ends = [-0.5, len(panel.lines) - 0.5]
    return Line(
        ends,
        [figure.mean] * 2,
        figure.label,
        MUTED if slot is None else f"series-{slot}",
        width=3,
        spread=[figure.std] * 2,
        opacity=0.3,
        hover=f"published: {spread(figure.mean, figure.std)}",
    )


def _width(panel: Panel) -> float:
    return max(100 * max(panel.targets, default=0.0), 10.0)
