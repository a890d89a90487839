"""How much models lose by int8: tables of the stages' copies, and the paper's third experiment beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainflat.records.run import Int8, Record, Stage
from trainflat.report.panels import Line, Panel, Point, Statistics
from trainflat.report.published import Figure, Rounded, published_int8
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
Shown = Statistics | Figure
Kind = tuple[str, bool, bool]  # how inputs are rounded, and whether lookup tables and the head are int8 too
Measure = Callable[[Point, Kind, str, str], Statistics | None]


def kinds(panel: Panel) -> list[Kind]:
    """Ways to round to int8 that some stage of the panel was scored with."""
    stages = [stage for record in panel.records for stage in record.stages]
    return sorted({_kind(stage.int8) for stage in stages if stage.int8 is not None})


def kind_name(kind: Kind) -> str:
    """For a table: ``per token, embeddings too``."""
    activations, *more = kind
    return ", ".join([_INPUTS.get(activations, activations), *_also(more)])


def kind_slug(kind: Kind) -> str:
    """For a column of the CSV: ``int8_token_embeddings``."""
    activations, *more = kind
    return "_".join(["int8", activations, *(word.partition(" ")[0] for word in _also(more))])


def about_published(panel: Panel) -> str:
    """What the published rows are, and whether the panel's own compare with them; empty where there are none."""
    finer = any(activations in ("token", "batch") for activations, *_ in kinds(panel))
    return "" if not comparable(panel) else _ABOUT_PUBLISHED + (_FINER if finer else "")


def metric(panel: Panel) -> str:
    """The main score, or the one that the paper's int8 table has, where that is another and was measured."""
    found = {figure.metric for figure in published_int8(panel)}
    stages = [stage for record in panel.records for stage in record.stages if stage.int8 is not None]
    measured = [name for name in found if all(name in stage.scores[panel.split] for stage in stages)]
    return measured[0] if measured else panel.metric


@dataclass(frozen=True)
class Drawing:
    """One plot against sparsity: what every line of the panel shows, and the published figures beside."""

    title: str
    measure: Callable[[Point], Statistics | None]
    published: list[Figure]
    low: float | None = None  # of an axis that plots share
    high: float | None = None


def drawings(panel: Panel) -> list[Drawing]:
    """Scores in float32 and in int8 on one scale, side by side, then what is lost; none where nothing was scored."""
    if not kinds(panel):
        return []
    split, name, beside = panel.split, metric(panel), comparable(panel)
    every = [Drawing("float32", _any(panel, float_of), [each.full for each in beside if each.full])]
    every += [
        Drawing(
            f"int8, inputs {kind_name(kind)}",
            _measure(int8_of, kind, split, name),
            [each.int8 for each in beside if each.inputs == kind[0]],  # another arithmetic's would flatter ours
        )
        for kind in kinds(panel)
    ]
    low, high = _range(panel, every)
    scores = [replace(each, low=low, high=high) for each in every]
    gaps = [
        Drawing(f"lost by int8, inputs {kind_name(kind)}", _measure(lost, kind, split, name), [])
        for kind in kinds(panel)
    ]
    return scores + gaps


def _measure(measure: Measure, kind: Kind, split: str, name: str) -> Callable[[Point], Statistics | None]:
    return lambda point: measure(point, kind, split, name)


def _any(panel: Panel, measure: Measure) -> Callable[[Point], Statistics | None]:
    """Of whichever way a point was rounded."""
    asked = [_measure(measure, kind, panel.split, metric(panel)) for kind in kinds(panel)]
    return lambda point: next((found for one in asked if (found := one(point))), None)


def _range(panel: Panel, every: Sequence[Drawing]) -> tuple[float, float]:
    """Lowest and highest of what is drawn, with a margin."""
    ours = [found for each in every for line in panel.lines for point in line.points if (found := each.measure(point))]
    shown: list[Shown] = [*ours, *(figure for each in every for figure in each.published)]
    low = min(one.mean - (one.std or 0) for one in shown)
    high = max(one.mean + (one.std or 0) for one in shown)
    margin = 0.06 * max(high - low, 1)
    return low - margin, high + margin


def int8_of(point: Point, kind: Kind, split: str, name: str) -> Statistics | None:
    """A score of the int8 copies over seeds; None where no run measured it."""
    return point.over_seeds(lambda _, stage: _scores(stage, kind).get(split, {}).get(name))


def float_of(point: Point, kind: Kind, split: str, name: str) -> Statistics | None:
    """The same score in float32, of the runs that measured the int8 copy."""
    return point.over_seeds(_where_rounded(kind, lambda _, stage: stage.scores.get(split, {}).get(name)))


def lost(point: Point, kind: Kind, split: str, name: str) -> Statistics | None:
    """Points that int8 costs, each model compared with itself."""

    def cost(_: Record, stage: Stage) -> float | None:
        before, after = (found.get(split, {}).get(name) for found in (stage.scores, _scores(stage, kind)))
        return None if before is None or after is None else before - after

    return point.over_seeds(cost)


def size_of(point: Point, kind: Kind) -> Statistics | None:
    """Bytes of the int8 copies."""
    return point.over_seeds(_where_rounded(kind, lambda _, stage: stage.int8.bytes if stage.int8 else None))


def int8_table(panel: Panel) -> list[dict[str, str]]:
    """Models × float32 and int8, and under them the published ones where they compare; empty where none was scored."""
    rows = [
        _row(panel, line, point, kind)
        for line in panel.lines
        for point in line.points
        for kind in kinds(panel)
        if int8_of(point, kind, panel.split, metric(panel)) is not None
    ]
    return [*rows, *(_published_row(panel, each) for each in comparable(panel))]


def comparable(panel: Panel) -> list[Rounded]:
    """Published figures in the metric of the panel's table; none where nothing was scored in int8."""
    return [each for each in published_int8(panel) if each.metric == metric(panel)] if kinds(panel) else []


def _row(panel: Panel, line: Line, point: Point, kind: Kind) -> dict[str, str]:
    asked = point, kind, panel.split, metric(panel)
    size = size_of(point, kind)
    return {
        "Optimizer": line.label,
        "Seeds": str(len({record.seed for record, stage in point.runs if _fits(stage, kind)})),
        "Sparsity": percent(point.target),
        "Inputs": kind_name(kind),
        **_columns(panel, float_of(*asked), int8_of(*asked)),
        "Lost": _shown(lost(*asked), 2),
        "int8 MB": DASH if size is None else megabytes(size.mean),
    }


def _published_row(panel: Panel, figure: Rounded) -> dict[str, str]:
    head = {"Optimizer": figure.label, "Seeds": "published", "Sparsity": percent(0), "Inputs": _INPUTS[figure.inputs]}
    before, after = figure.full, figure.int8
    gap = DASH if before is None else f"{before.mean - after.mean:.2f}"
    return head | _columns(panel, before, after) | {"Lost": gap, "int8 MB": DASH}


def _columns(panel: Panel, before: Shown | None, after: Shown | None) -> dict[str, str]:
    named = metric_name(metric(panel), panel.positive)
    return {f"float32, {named}": _shown(before), f"int8, {named}": _shown(after)}


def _shown(found: Shown | None, digits: int = 1) -> str:
    return DASH if found is None else spread(found.mean, found.std, digits)


def _kind(int8: Int8) -> Kind:
    return int8.activations, int8.embeddings, int8.head


def _fits(stage: Stage, kind: Kind) -> bool:
    return stage.int8 is not None and _kind(stage.int8) == kind


def _scores(stage: Stage, kind: Kind) -> dict[str, dict[str, float]]:
    return stage.int8.scores if stage.int8 is not None and _kind(stage.int8) == kind else {}


def _where_rounded(
    kind: Kind, measure: Callable[[Record, Stage], float | None]
) -> Callable[[Record, Stage], float | None]:
    return lambda record, stage: measure(record, stage) if _fits(stage, kind) else None


def _also(more: Sequence[bool]) -> list[str]:
    return [words for words, on in zip(("embeddings too", "head too"), more, strict=True) if on]
