"""Score against training compute of models of several sizes, with the frontier."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from trainflat.records.run import Record, Stage
from trainflat.report.elements import MUTED, Axis, Mark, Plot, Table
from trainflat.report.elements import Line as Drawn
from trainflat.report.palette import Palette
from trainflat.report.panels import Line, Panel, Point
from trainflat.report.sections.base import Section
from trainflat.report.sections.frontier import frontier
from trainflat.report.words import metric_name, percent

PROTOCOL = "transfer"


@dataclass(frozen=True)
class Reached:
    """A size's mean score over seeds, after so much training."""

    size: float  # share of heads and units that were dropped
    epoch: float
    compute: float
    score: float


class TransferFrontier(Section):
    """Draws a line per size through its evaluations, and a table of what is best for a given compute."""

    title = "Score against training compute"
    key = "transfer"
    size = (5.6, 3.8)

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        if panel.protocol != PROTOCOL:
            return ()
        lines = [self._line(line, point, palette) for line in panel.lines for point in line.points]
        best = [(one.compute, one.score) for one in on_frontier(panel)]
        marks: list[Mark] = [Drawn(*_columns(best), "frontier", MUTED, 5.0, dash=1), *(one for one in lines if one.x)]
        axes = Axis(_COMPUTE, from_zero=True), Axis(metric_name(panel.metric, panel.positive))
        return [Plot([marks], *axes, height=270)]

    def _line(self, line: Line, point: Point, palette: Palette) -> Drawn:
        # Sizes are told apart by dashes and symbols; an optimizer has its colour, as everywhere.
        number = [one.target for one in line.points].index(point.target)
        label = f"{line.label}, {_name(point.target)}"
        color = f"series-{palette.slot(line.optimizer)}"
        found = reached(point)
        return Drawn(
            [one.compute for one in found],
            [one.score for one in found],
            label,
            color,
            2.0,
            number,
            palette.symbol(line.optimizer, number),
            hover=f"{label}: {{x:.2f}} epochs' worth, {{y:.1f}}",
        )

    def caption(self, panel: Panel) -> str:
        return (
            f"{panel.scored_on}, at each evaluation of the fine-tuning, means over seeds. Compute counts forward and "
            "backward passes, each by the multiply-adds of the layers' matrices: an epoch of the whole model with one "
            "pass per step is 1. The frontier joins what no other size or training beats with less."
        )

    def tables(self, panel: Panel) -> Sequence[Table]:
        if panel.protocol != PROTOCOL:
            return ()
        rows = [
            {
                "Compute": f"{one.compute:.2f}",
                "Model": _name(one.size),
                "Epoch": f"{one.epoch:g}",
                "Score": f"{one.score:.1f}",
            }
            for one in on_frontier(panel)
        ]
        return [Table(rows, "What is best for a given training compute, in epochs of the whole model.")]


_COMPUTE = "Training compute (epochs of the whole model)"


def reached(point: Point) -> list[Reached]:
    """Returns the evaluations of one size, by compute."""
    found: defaultdict[float, list[tuple[float, float]]] = defaultdict(list)
    for record, stage in point.runs:
        for epoch, compute, score in _evaluations(record, stage):
            found[epoch].append((compute, score))
    return [
        Reached(point.target, epoch, fmean(x for x, _ in values), fmean(y for _, y in values))
        for epoch, values in sorted(found.items())
    ]


def on_frontier(panel: Panel) -> list[Reached]:
    """Returns the evaluations that no other beats with as little compute, from the least compute on."""
    everything = [one for line in panel.lines for point in line.points for one in reached(point)]
    places = {(-one.compute, one.score): one for one in everything}
    return [places[place] for place in reversed(frontier(places))]


def _evaluations(record: Record, stage: Stage) -> list[tuple[float, float, float]]:
    """Returns epoch, compute and score of each evaluation."""
    training, key = stage.training, f"{record.task.split}/{record.task.metric}"
    dense = next((one for one in record.stages if one.target_sparsity == 0), None)
    if training is None or dense is None or not training.steps:
        return []
    # Passes per step are taken as the same throughout. Looking rows up and the task's head cost next to nothing.
    cost = training.passes / training.steps * _multiply_adds(stage) / _multiply_adds(dense)
    return [
        (one["epoch"], one["epoch"] * cost, one[key]) for one in training.evaluations if {key, "epoch"} <= one.keys()
    ]


def _multiply_adds(stage: Stage) -> int:
    return sum(matrix.entries for matrix in stage.matrices)


def _name(target: float) -> str:
    return "whole model" if target == 0 else f"{percent(target)} fewer heads and units"


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
