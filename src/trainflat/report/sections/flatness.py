"""Shows the measured sharpness of every stage, with published figures beside it."""

from collections.abc import Sequence
from functools import partial

from trainflat.report.elements import Axis, Plot, Rows, Table
from trainflat.report.palette import Palette
from trainflat.report.panels import Line, Panel, Point, Statistics
from trainflat.report.published import Figure as Published
from trainflat.report.published import published_sharpness
from trainflat.report.sections.base import Row, Section, against_sparsity, sparsity_axis
from trainflat.report.words import DASH, figure_name, four_digits, percent, spread

ABOUT = (
    "Measured on rows of the training set without dropout; of a pruned model only the surviving weights move. Lower is "
    "flatter. Every figure rises with its budget and rows, which the recipe tells: compare those of one recipe."
)
ABOUT_PUBLISHED = (
    "The paper searches Keskar's random subspace too, but does not say how many directions, steps and rows it took: "
    "its figures tell the order of optimizers, less so the size."
)


class Flatness(Section):
    """Draws one plot per measure."""

    title = "Flatness"
    key = "flatness"

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        return [
            Plot(
                [against_sparsity(panel, palette, partial(flatness_of, name=name), comparable(panel, name))],
                sparsity_axis(panel),
                Axis(from_zero=True),
                figure_name(name),
            )
            for name in measured(panel)
        ]

    def caption(self, panel: Panel) -> str:
        compared = any(comparable(panel, name) for name in measured(panel))
        return f"{ABOUT} Short bars are published means ± standard deviations. {ABOUT_PUBLISHED}" if compared else ABOUT

    def tables(self, panel: Panel) -> Sequence[Table]:
        note = ABOUT_PUBLISHED if published_sharpness(panel) else ""
        return [Table(flatness_table(panel), f"Flatness. {ABOUT}", note)]

    def columns(self, panel: Panel, point: Point) -> Row:
        row: Row = {}
        for name in measured(panel):
            found = flatness_of(point, name)
            row |= {f"flatness_{name}": found and found.mean, f"flatness_{name}_std": found and found.std}
        return row


def measured(panel: Panel) -> list[str]:
    """Returns the names of the figures that some stage of the panel has, as in records."""
    stages = [stage for record in panel.records for stage in record.stages]
    return sorted({name for stage in stages for name in stage.flatness})


def flatness_of(point: Point, name: str) -> Statistics | None:
    """Returns a figure over seeds; None where no run measured it."""
    return point.over_seeds(lambda _, stage: stage.flatness.get(name))


def comparable(panel: Panel, name: str) -> list[Published]:
    """Returns published values of a figure at sparsities where some run of the panel has it too."""
    found = [figure for figure in published_sharpness(panel) if figure.measure == name]
    ours = {point.target for line in panel.lines for point in line.points if flatness_of(point, name)}
    return [figure for figure in found if any(abs(figure.sparsity - target) < 1e-9 for target in ours)]


def flatness_table(panel: Panel) -> Rows:
    """Returns models × figures, and under them the published ones where they compare; empty without measures."""
    names = measured(panel)
    points = [(line, point) for line in panel.lines for point in line.points]
    rows = [_row(line, point, names) for line, point in points if any(flatness_of(point, name) for name in names)]
    return rows + _published_rows(panel, names)


def _row(line: Line, point: Point, names: Sequence[str]) -> dict[str, str]:
    shown = {figure_name(name): _shown(flatness_of(point, name)) for name in names}
    seeds = {record.seed for record, stage in point.runs if stage.flatness}
    return {"Optimizer": line.label, "Seeds": str(len(seeds)), "Sparsity": point.title, **shown}


def _published_rows(panel: Panel, names: Sequence[str]) -> Rows:
    rows: dict[tuple[float, str], dict[str, str]] = {}
    for name in names:
        for figure in comparable(panel, name):
            head = {"Optimizer": figure.label, "Seeds": "published", "Sparsity": percent(figure.sparsity)}
            row = rows.setdefault((figure.sparsity, figure.label), head | dict.fromkeys(map(figure_name, names), DASH))
            row[figure_name(name)] = spread(figure.mean, figure.std)
    return [rows[key] for key in sorted(rows)]


def _shown(found: Statistics | None) -> str:
    if found is None:
        return DASH
    mean = four_digits(found.mean)
    return mean if found.std is None else f"{mean} ± {found.std:.2g}"
