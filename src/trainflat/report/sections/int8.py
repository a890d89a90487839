"""Shows what int8 copies of every stage lose, with the paper's third experiment beside them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from trainflat.records.run import Int8, Record, Stage
from trainflat.report.elements import Axis, Line, Mark, Plot, Rows, Table
from trainflat.report.palette import Palette
from trainflat.report.panels import Line as Runs
from trainflat.report.panels import Panel, Point, Statistics
from trainflat.report.published import Figure, Rounded, published_int8
from trainflat.report.sections.base import Row, Section, against_sparsity, sparsity_axis
from trainflat.report.words import DASH, megabytes, metric_name, percent, spread

ABOUT = (
    "Scores of every model in float32 and as an int8 copy. Inputs of the linear layers are rounded as the column says; "
    "weights with one step per output channel, but one per matrix beside inputs in 7 bits, and as the training did "
    "where that rounded. Lost: mean over seeds of each model's own loss, in points."
)
_ABOUT_PUBLISHED = (
    "The papers' int8 models are dense: Na et al. round with torch's dynamic quantization (one step per weight matrix, "
    "inputs per batch in 7 bits, the task head too) and do not train again; Q8BERT is trained with fake quantization "
    "and rounds inputs by fixed ranges."
)
_FINER = (
    " Rows with inputs per token or per batch in 8 bits are of a finer arithmetic than the published ones, so what "
    "int8 costs there does not compare; evaluation.int8: {activations: torch, head: true} is theirs."
)
_INPUTS = {"token": "per token", "batch": "per batch", "torch": "per batch in 7 bits", "static": "by trained ranges"}


class Int8Scores(Section):
    """Plots scores in float32 and int8 on one scale, then their difference."""

    title = "int8"
    key = "int8"

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        found, split, name, beside = ways(panel), panel.split, metric(panel), comparable(panel)

        def in_float32(point: Point) -> Statistics | None:
            return next((value for way in found if (value := way.float32(point, split, name))), None)

        draw = partial(against_sparsity, panel, palette)
        scores = {"float32": draw(in_float32, [each.full for each in beside if each.full])} if found else {}
        for way in found:  # published figures of another arithmetic would flatter ours
            same = [each.int8 for each in beside if each.inputs == way.inputs]
            scores[f"int8, inputs {way.name}"] = draw(partial(way.int8, split=split, name=name), same)
        lost = {f"lost by int8, inputs {way.name}": draw(partial(way.lost, split=split, name=name)) for way in found}
        shared, across = _shared_axis(scores.values()), sparsity_axis(panel)
        return [
            *(Plot([marks], across, shared, title) for title, marks in scores.items()),
            *(Plot([marks], across, Axis(), title) for title, marks in lost.items()),
        ]

    def caption(self, panel: Panel) -> str:
        told = about_published(panel)
        bars = f" Short bars are published means ± standard deviations. {told}" if told else ""
        return f"{ABOUT} Plots show {metric_name(metric(panel), panel.positive)}.{bars}"

    def under(self, panel: Panel) -> str:
        return metric_name(metric(panel), panel.positive)

    def tables(self, panel: Panel) -> Sequence[Table]:
        return [Table(int8_table(panel), f"int8. {ABOUT}", about_published(panel))]

    def columns(self, panel: Panel, point: Point) -> Row:
        row: Row = {}
        for way in ways(panel):
            score, size = way.int8(point, panel.split, panel.metric), way.size(point)
            row |= {
                f"{way.slug}_score_mean": score and score.mean,
                f"{way.slug}_score_std": score and score.std,
                f"{way.slug}_bytes": size and size.mean,
            }
        return row


@dataclass(frozen=True, order=True)
class Way:
    """Describes a way of rounding: of the inputs, and whether lookup tables and the head are int8 too."""

    inputs: str
    embeddings: bool
    head: bool

    @classmethod
    def of(cls, int8: Int8) -> "Way":
        """Returns the way in which a copy was made."""
        return cls(int8.activations, int8.embeddings, int8.head)

    @property
    def name(self) -> str:
        """Returns words for a table: ``per token, embeddings too``."""
        return ", ".join([_INPUTS.get(self.inputs, self.inputs), *(f"{part} too" for part in self._also())])

    @property
    def slug(self) -> str:
        """Returns the beginning of a column of the CSV: ``int8_token_embeddings``."""
        return "_".join(["int8", self.inputs, *self._also()])

    def _also(self) -> list[str]:
        return ["embeddings"] * self.embeddings + ["head"] * self.head

    def made(self, stage: Stage) -> bool:
        """Returns whether the stage has a copy that was rounded in this way."""
        return stage.int8 is not None and Way.of(stage.int8) == self

    def int8(self, point: Point, split: str, name: str) -> Statistics | None:
        """Returns a score of the int8 copies over seeds; None where no run measured it."""
        return point.over_seeds(lambda _, stage: self._scores(stage).get(split, {}).get(name))

    def float32(self, point: Point, split: str, name: str) -> Statistics | None:
        """Returns the same score in float32, of the runs that have such a copy."""
        return point.over_seeds(lambda _, s: s.scores.get(split, {}).get(name) if self.made(s) else None)

    def lost(self, point: Point, split: str, name: str) -> Statistics | None:
        """Returns the points that int8 costs, each model compared with itself."""

        def cost(_: Record, stage: Stage) -> float | None:
            before, after = (found.get(split, {}).get(name) for found in (stage.scores, self._scores(stage)))
            return None if before is None or after is None else before - after

        return point.over_seeds(cost)

    def size(self, point: Point) -> Statistics | None:
        """Returns the bytes of the copies."""
        return point.over_seeds(lambda _, s: s.int8.bytes if s.int8 is not None and self.made(s) else None)

    def _scores(self, stage: Stage) -> dict[str, dict[str, float]]:
        return stage.int8.scores if stage.int8 is not None and self.made(stage) else {}


def ways(panel: Panel) -> list[Way]:
    """Returns the ways to round that some stage of the panel was scored with."""
    stages = [stage for record in panel.records for stage in record.stages]
    return sorted({Way.of(stage.int8) for stage in stages if stage.int8 is not None})


def about_published(panel: Panel) -> str:
    """Says what the published rows are, and whether the panel's own compare; empty where there are none."""
    finer = any(way.inputs in ("token", "batch") for way in ways(panel))
    return "" if not comparable(panel) else _ABOUT_PUBLISHED + (_FINER if finer else "")


def metric(panel: Panel) -> str:
    """Returns the main metric, or the metric of the paper's int8 table where that differs and was measured."""
    found = {figure.metric for figure in published_int8(panel)}
    stages = [stage for record in panel.records for stage in record.stages if stage.int8 is not None]
    measured = [name for name in found if all(name in stage.scores[panel.split] for stage in stages)]
    return measured[0] if measured else panel.metric


def comparable(panel: Panel) -> list[Rounded]:
    """Returns published figures in the metric of the panel's table; none where nothing was scored in int8."""
    return [each for each in published_int8(panel) if each.metric == metric(panel)] if ways(panel) else []


def _shared_axis(plots: Iterable[Sequence[Mark]]) -> Axis:
    """Returns an axis that holds all that is drawn, with a margin: figures side by side have one scale."""
    lines = [mark for marks in plots for mark in marks if isinstance(mark, Line)]
    shown = [(y, s or 0) for line in lines for y, s in zip(line.y, line.spread, strict=True) if y is not None]
    if not shown:
        return Axis()
    low, high = min(y - s for y, s in shown), max(y + s for y, s in shown)
    margin = 0.06 * max(high - low, 1)
    return Axis(low=low - margin, high=high + margin)


def int8_table(panel: Panel) -> Rows:
    """Returns models × float32 and int8, and under them the published ones; empty where nothing was scored."""
    rows = [
        _row(panel, line, point, way)
        for line in panel.lines
        for point in line.points
        for way in ways(panel)
        if way.int8(point, panel.split, metric(panel)) is not None
    ]
    return [*rows, *(_published_row(panel, each) for each in comparable(panel))]


def _row(panel: Panel, line: Runs, point: Point, way: Way) -> dict[str, str]:
    asked, size = (point, panel.split, metric(panel)), way.size(point)
    return {
        "Optimizer": line.label,
        "Seeds": str(len({record.seed for record, stage in point.runs if way.made(stage)})),
        "Sparsity": point.title,
        "Inputs": way.name,
        **_scores(panel, way.float32(*asked), way.int8(*asked)),
        "Lost": _shown(way.lost(*asked), 2),
        "int8 MB": DASH if size is None else megabytes(size.mean),
    }


def _published_row(panel: Panel, figure: Rounded) -> dict[str, str]:
    head = {"Optimizer": figure.label, "Seeds": "published", "Sparsity": percent(0), "Inputs": _INPUTS[figure.inputs]}
    before, after = figure.full, figure.int8
    gap = DASH if before is None else f"{before.mean - after.mean:.2f}"
    return head | _scores(panel, before, after) | {"Lost": gap, "int8 MB": DASH}


def _scores(panel: Panel, before: Statistics | Figure | None, after: Statistics | Figure | None) -> dict[str, str]:
    named = metric_name(metric(panel), panel.positive)
    return {f"float32, {named}": _shown(before), f"int8, {named}": _shown(after)}


def _shown(found: Statistics | Figure | None, digits: int = 1) -> str:
    return DASH if found is None else spread(found.mean, found.std, digits)
