"""What structured pruning left: heads and widths of every layer, parameters, and times as predicted and measured."""

from collections.abc import Sequence
from statistics import fmean

from trainflat.records.structure import LayerWidths, Structure
from trainflat.report.elements import Axis, Heat, Plot, Table
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel, Point, at
from trainflat.report.sections.base import Row, Section
from trainflat.report.words import DASH

_SHORT = {"alive": "", "bias-only": "bias", "skipped": "skip"}


class StructureMap(Section):
    """Draws one map per line, layers across, heads and the share of feed-forward units down."""

    title = "What is left of the structure"
    key = "structure"
    broad = True

    def targets(self, panel: Panel) -> Sequence[float]:
        return [target for target in panel.targets if any(_shaped(at(line, target)) for line in panel.lines)]

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        shown = [line for line in panel.lines if any(map(_shaped, line.points))]
        targets, plots = self.targets(panel), []
        for line in shown:
            frames = [[heat(found)] if (found := _shaped(at(line, target))) else [] for target in targets]
            rows = max((len(marks[0].rows) for marks in frames if marks), default=0)
            plots.append(Plot(frames, Axis("Layer"), title=line.label, height=60 + 18 * rows))
        return plots

    def caption(self, panel: Panel) -> str:
        return (
            "Heads that are left, in percent of the seeds, and feed-forward units that are left, in percent of the "
            "dense layer's, mean over seeds. Layers and heads are counted from 0, as in the dense model."
        )

    def tables(self, panel: Panel) -> Sequence[Table]:
        rows = [
            {"Optimizer": line.label, "Target": point.title, **_row(point)}
            for line in panel.lines
            for point in line.points
            if _shaped(point)
        ]
        about = (
            "Structure, mean over seeds; of widths, the first seed's: heads and feed-forward units of each layer, "
            "`bias` where only the sub-layer's bias is left and `skip` where nothing is. Predicted times are those of "
            "the table of widths that the structure was chosen by."
        )
        return [Table(rows, about)]

    def columns(self, panel: Panel, point: Point) -> Row:
        found = _shaped(point)
        if not found:
            return {}
        return {
            "structure_sparsity": fmean(one.sparsity for one in found),
            "structure_multiply_adds": fmean(one.multiply_adds for one in found),
            "structure_parameters": fmean(one.parameters for one in found),
        }


def heat(structures: Sequence[Structure]) -> Heat:
    """Returns the map of a stage over its seeds: a row per head, and one of units."""
    first = structures[0]
    heads: list[list[float | None]] = [
        [100 * fmean(head in one.layers[n].heads for one in structures) for n in range(len(first.layers))]
        for head in range(first.heads)
    ]
    units: list[float | None] = [
        100 * fmean(one.layers[n].units for one in structures) / max(first.units, 1) for n in range(len(first.layers))
    ]
    return Heat(
        [str(n) for n in range(len(first.layers))],
        [*(f"head {head}" for head in range(first.heads)), "units"],
        [*heads, units],
        0.0,
        100.0,
        label="Left (%)",
        unit=" %",
        hover="layer {x}, {y}: {z:.0f} % left",
    )


def widths(layer: LayerWidths) -> str:
    """Writes what is left of a layer in a few letters.

    Example:
        >>> widths(LayerWidths(heads=[0, 3], units=96)), widths(LayerWidths(heads=[], units=0, attention="skipped"))
        ('2·96', 'skip·0')
    """
    attention = _SHORT[layer.attention] or str(len(layer.heads))
    return f"{attention}·{_SHORT[layer.feed_forward] or layer.units}"


def _shaped(point: Point | None) -> list[Structure]:
    """Returns the structures of a stage, of runs whose models have the same dense shape."""
    found = [stage.structure for _, stage in point.runs if stage.structure] if point else []
    return [one for one in found if (len(one.layers), one.heads) == (len(found[0].layers), found[0].heads)]


def _row(point: Point) -> dict[str, str]:
    found = _shaped(point)
    told = {}
    if predicted := [stage.timing.predicted_seconds for _, stage in point.runs if stage.timing.predicted_seconds]:
        shape, measured = _timed(point)
        told[f"ms, {shape}, predicted → measured"] = f"{1e3 * fmean(predicted):.1f} → {measured}"
    return {
        "Layers' parameters gone": f"{100 * fmean(one.sparsity for one in found):.1f} %",
        "Multiply-adds left": f"{100 * fmean(one.multiply_adds for one in found):.1f} %",
        "Hidden": f"{found[0].hidden} of {found[0].dense_hidden}",
        "Words": f"{found[0].vocabulary:,} of {found[0].dense_vocabulary:,}",
        **told,
        "Heads · units by layer": " | ".join(map(widths, found[0].layers)),
        "Score": found[0].score or DASH,
        "Repair": _repair(found),
    }


def _repair(found: Sequence[Structure]) -> str:
    left = [one.error_left for one in found if one.error_left is not None]
    error = f", {100 * fmean(left):.0f} % of the error left" if left else ""
    return f"{found[0].repair or DASH}{error}"


def _timed(point: Point) -> tuple[str, str]:
    """Returns batch and length for which times were predicted, and the milliseconds measured there."""
    protocol = point.runs[0][0].recipe.get("protocol", {})
    shape = (protocol.get("batch", 1), protocol.get("length", 128))
    found = [one.median for _, stage in point.runs for one in stage.timing.latency if (one.batch, one.length) == shape]
    return f"{shape[0]} × {shape[1]}", f"{1e3 * fmean(found):.1f}" if found else DASH
