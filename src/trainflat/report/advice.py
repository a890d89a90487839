"""Derives advice from a diagnosis, by rules of thumb that each name their reason.

A sentence claims what the rows tell, with its margin (see ``trainflat.core.margins``), or is not said.
"""

from collections.abc import Sequence
from math import hypot, sqrt
from statistics import median

from trainflat.records.diagnosis import Cut, Diagnosis
from trainflat.report.words import change, metric_name, percent, places

TOLERATED = 1.0  # points of the score that a compressed model may lose
_SHARP = 3.0  # a part is singled out where its loss is this many times the median's


def advice(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Returns a few sentences on every model, and on two of them beside each other."""
    named = places([one.model for one in diagnoses])
    found = [one.model_copy(update={"model": name}) for one, name in zip(diagnoses, named, strict=True)]
    said = [sentence for one in found for sentence in _on_one(one, named=len(found) > 1)]
    return said + [sentence for other in found[1:] for sentence in _beside(found[0], other)]


def _on_one(found: Diagnosis, named: bool) -> list[str]:
    who = f"{found.model}: " if named else ""
    remark = found.answers.remark() if found.answers else ""
    if _blind(found):
        said = [f"{remark}. What pruning or rounding costs such a model says nothing: train it first."]
    else:
        doubt = [f"{remark}."] if remark else []
        said = [*doubt, _on_free(found), *_on_emptied(found), *_on_parts(found), _on_int8(found)]
    return [f"{who}{sentence}" if who else sentence[0].upper() + sentence[1:] for sentence in said]


def _blind(found: Diagnosis) -> bool:
    return found.answers is not None and found.answers.learned_nothing


def _on_free(found: Diagnosis) -> str:
    """Says how far pruning costs nothing, or what the first cut costs where even that is not free."""
    free, metric = found.kept_to(TOLERATED), metric_name(found.metric, found.positive)
    at_once = "magnitude pruning without any training"
    kept = [cut for cut in found.one_shot if cut.sparsity <= free]
    if kept:
        where = (
            f"{metric} on {found.sampled_rows:,} rows within {TOLERATED:g} point up to {percent(free)} of the encoder"
        )
        start = f"Start iterative pruning there (sparsities from {free:g} on)."
        return f"{at_once} keeps {where}: there it {_cost(found, kept[-1])}. {start}"
    if not found.one_shot:
        return f"{at_once} was not tried: {percent(found.sparsity, 1)} of the encoder is zero already."
    first = found.one_shot[0]
    said = f"{at_once} to {percent(first.sparsity)} of the encoder {_cost(found, first)}"
    if found.lost(first).low <= TOLERATED:
        return f"{said}: on these rows not significantly more than {TOLERATED:g} point. Take more (--rows)."
    better = "Prune in rounds with training in between (protocol: iterative), or train flatter first (optimizer: sam)."
    return f"{said}. {better}"


def _cost(found: Diagnosis, cut: Cut) -> str:
    return change(found.lost(cut), found.sampled_rows)


def _on_int8(found: Diagnosis) -> str:
    """Says what rounding weights and inputs costs without any training."""
    lost, smaller = found.int8_loss, 100 * found.int8.bytes / (4 * found.parameters)
    cost = (
        f"rounding to int8 (trainflat.quantization.quantize_dynamic) {change(lost, found.data[found.split].rows)} "
        f"and takes {smaller:.0f} % of the bytes"
    )
    if lost.high <= TOLERATED:
        return f"{cost}: it can be had without training."
    if lost.low > TOLERATED:
        return f"{cost}. Train with fake quantization (training.quantization: q8bert), or flatter (optimizer: sam)."
    return f"{cost}: not significantly more than {TOLERATED:g} point."


def _on_emptied(found: Diagnosis) -> list[str]:
    """Names a matrix that a global ranking leaves nothing of, such as MiniLM's pooler with its small weights."""
    cut = next((cut for cut in found.one_shot if cut.emptied), None)
    if cut is None or found.lost(cut).low <= TOLERATED:
        return []
    several = f" and {len(cut.emptied) - 1} more" if len(cut.emptied) > 1 else ""
    which = f"{cut.emptied[0]}{several}"
    return [
        f"magnitudes ranked over all matrices leave nothing of {which} at {percent(cut.sparsity)}, where "
        f"{metric_name(found.metric, found.positive)} is {cut.score:z.1f}. "
        "Prune every matrix to the same share (scope: layer)."
    ]


def _on_parts(found: Diagnosis) -> list[str]:
    """Finds the part whose loss of score differs significantly from every other part's."""
    said = []
    for axis in ("layer", "kind"):
        parts = sorted((s for s in found.sensitivity if s.axis == axis), key=lambda s: s.cut.score)
        if len(parts) < 2:
            continue
        worst, lost = parts[0], found.lost(parts[0].cut)
        middle = median(found.lost(one.cut).value for one in parts)
        apart = all(found.worse(worst.cut, other.cut).low > 0 for other in parts[1:])
        if apart and lost.low > TOLERATED and lost.value > _SHARP * max(middle, 0):
            said.append(
                f"one {axis} bears more than any other: {worst.part} alone at {percent(worst.cut.sparsity)} "
                f"{_cost(found, worst.cut)}, the median {axis} {middle:z.1f}. A global ranking may spare it; "
                "check its zeros in the report."
            )
    return said


def _beside(one: Diagnosis, other: Diagnosis) -> list[str]:
    if _blind(one) or _blind(other):
        return []
    flatter, sharper, count = _flatter(one, other)
    if flatter or sharper:
        said = f"{one.model} is flatter than {other.model} by {flatter} and sharper by {sharper} of {count} figures"
    else:
        said = (
            f"none of {count} figures on {one.flatness_rows:,} rows differs significantly between {one.model} and "
            f"{other.model}"
        )
    further = _further(one, other)
    kept = "neither loses significantly less without training"
    if further:
        less, more = (one, other) if further > 0 else (other, one)
        kept = f"{less.model} loses less than {more.model} without training"
    return [f"{said}; {kept}: {_verdict(flatter - sharper, further)}. {_caution(one, other)}"]


def _caution(one: Diagnosis, other: Diagnosis) -> str:
    if one.parameters != other.parameters:
        return "They are models of different size, whose figures of flatness do not compare."
    return "One pair of models proves nothing."


def _verdict(flatter: int, further: int) -> str:
    """Says whether the flatter model is the one that loses less, as the flatness hypothesis has it."""
    if not flatter:
        return "the figures do not agree on which one is flatter"
    if not further:
        return "so there is no difference for flatness to explain"
    return f"{'as' if flatter * further > 0 else 'not as'} the flatness hypothesis has it"


def _further(one: Diagnosis, other: Diagnosis) -> int:
    """Returns 1 where the first surely loses less at a sparsity that both were cut to, -1 where more, else 0."""
    theirs = {cut.sparsity: cut for cut in other.one_shot}
    pairs = [(one.lost(cut), other.lost(theirs[cut.sparsity])) for cut in one.one_shot if cut.sparsity in theirs]
    less = any(mine.high < its.low for mine, its in pairs)
    more = any(mine.low > its.high for mine, its in pairs)
    return less - more


def _flatter(one: Diagnosis, other: Diagnosis) -> tuple[int, int, int]:
    """Counts the figures by which the first is flatter, those by which it is sharper, and those that both have.

    Two values differ where more than their standard errors lies between them; a figure without an error is taken to
    be as sure as a mean over its rows of values that spread as wide as they are large.
    """
    ours, theirs = _figures(one), _figures(other)
    both = [name for name in ours if name in theirs]
    margins = {name: 1.96 * hypot(_error(one, name), _error(other, name)) for name in both}
    flatter = sum(ours[name] < theirs[name] - margins[name] for name in both)
    sharper = sum(ours[name] > theirs[name] + margins[name] for name in both)
    return flatter, sharper, len(both)


def _error(found: Diagnosis, name: str) -> float:
    rows = abs(_figures(found)[name]) / sqrt(found.flatness_rows)
    return hypot(rows, _values(found).get(f"{name}_error", 0.0))


def _figures(found: Diagnosis) -> dict[str, float]:
    """Returns the figures of which lower is flatter: not errors of estimates, nor the lowest eigenvalue."""
    return {k: value for k, value in _values(found).items() if not k.endswith(("_error", "_lowest"))}


def _values(found: Diagnosis) -> dict[str, float]:
    return {name: value for measured in found.flatness for name, value in measured.values.items()}
