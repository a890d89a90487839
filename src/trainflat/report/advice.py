"""What follows from a diagnosis, in words. Rules of thumb on the numbers at hand, each of which names its reason."""

from collections.abc import Sequence

from trainflat.diagnosis import Diagnosis, Sensitivity
from trainflat.report.words import metric_name, percent, places

TOLERATED = 1.0  # points of the score that a compressed model may lose
_SHARP = 3.0  # a part is singled out where its loss is this many times the median's


def advice(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """A few sentences on every model, and on two of them beside each other."""
    named = places([one.model for one in diagnoses])
    found = [one.model_copy(update={"model": name}) for one, name in zip(diagnoses, named, strict=True)]
    said = [sentence for one in found for sentence in _on_one(one, named=len(found) > 1)]
    return said + [sentence for other in found[1:] for sentence in _beside(found[0], other)]


def _on_one(found: Diagnosis, named: bool) -> list[str]:
    who = f"{found.model}: m" if named else "M"
    free, metric = found.kept_to(TOLERATED), metric_name(found.metric)
    at_once = f"{who}agnitude pruning without any training"
    if free > found.sparsity:
        said = [
            f"{at_once} keeps {metric} within {TOLERATED:g} point up to {percent(free)} of the encoder. Start "
            f"iterative pruning there (sparsities from {free:g} on): rounds below it are wasted."
        ]
    else:
        said = [
            f"{at_once} costs more than {TOLERATED:g} point at the first cut already. Prune in rounds with training in "
            "between (protocol: iterative), or train flatter first (optimizer: sam)."
        ]
    return said + _on_emptied(found, who) + _on_parts(found, who) + _on_int8(found, named)


def _on_int8(found: Diagnosis, named: bool) -> list[str]:
    """What rounding weights and inputs costs, without any training."""
    who = f"{found.model}: r" if named else "R"
    cost = f"{who}ounding to int8 (trainflat.quantization.quantize_dynamic) costs {found.int8_loss:.1f} points"
    if found.int8_loss <= TOLERATED:
        smaller = 100 * found.int8.bytes / (4 * found.parameters)
        return [f"{cost} and takes {smaller:.0f} % of the bytes: it can be had without training."]
    return [f"{cost}. Train with fake quantization (training.quantization: q8bert), or flatter (optimizer: sam)."]


def _on_emptied(found: Diagnosis, who: str) -> list[str]:
    """A matrix of small weights, such as MiniLM's pooler, may be the first to go whole in a global ranking."""
    cut = next((cut for cut in found.one_shot if cut.emptied), None)
    if cut is None or found.sampled_score - cut.score <= TOLERATED:
        return []
    several = f" and {len(cut.emptied) - 1} more" if len(cut.emptied) > 1 else ""
    which = f"{cut.emptied[0]}{several}"
    return [
        f"{who}agnitudes ranked over all matrices leave nothing of {which} at {percent(cut.sparsity)}, where "
        f"{metric_name(found.metric)} is {cut.score:.1f}. Prune every matrix to the same share (scope: layer)."
    ]


def _on_parts(found: Diagnosis, who: str) -> list[str]:
    said = []
    for axis in ("layer", "kind"):
        parts = sorted((s for s in found.sensitivity if s.axis == axis), key=lambda s: s.cut.score)
        if len(parts) < 2:
            continue
        worst, middle = _loss(found, parts[0]), _loss(found, parts[len(parts) // 2])
        if worst > TOLERATED and worst > _SHARP * max(middle, 0):
            said.append(
                f"{who}ost of the damage is in one {axis}: {parts[0].part} alone at {percent(parts[0].cut.sparsity)} "
                f"costs {worst:.1f} points, the median {axis} {middle:.1f}. A global ranking may spare it; "
                "check its zeros in the report."
            )
    return said


def _loss(found: Diagnosis, part: Sensitivity) -> float:
    return found.sampled_score - part.cut.score


def _beside(one: Diagnosis, other: Diagnosis) -> list[str]:
    ours, theirs = _figures(one), _figures(other)
    pairs = [(value, theirs[name]) for name, value in ours.items() if name in theirs]
    flatter, sharper = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    mine, its = one.kept_to(TOLERATED), other.kept_to(TOLERATED)
    return [
        f"{one.model} is flatter than {other.model} by {flatter} of {len(pairs)} figures, and keeps its score to "
        f"{percent(mine)} against {percent(its)} without training: {_verdict(flatter - sharper, mine - its)}. "
        f"{_caution(one, other)}"
    ]


def _caution(one: Diagnosis, other: Diagnosis) -> str:
    if one.parameters != other.parameters:
        return "They are models of different size, whose figures of flatness do not compare."
    return "One pair of models proves nothing."


def _verdict(flatter: int, kept: float) -> str:
    """What the flatness hypothesis makes of more figures that are lower, and more weights that can go."""
    if not flatter:
        return "the figures do not agree on which one is flatter"
    if not kept:
        return "so here flatness made no difference to that"
    return f"{'as' if flatter * kept > 0 else 'not as'} the flatness hypothesis has it"


def _figures(found: Diagnosis) -> dict[str, float]:
    """Those of which lower is flatter: not errors of estimates, nor the lowest eigenvalue."""
    values = {name: value for measured in found.flatness for name, value in measured.values.items()}
    return {name: value for name, value in values.items() if not name.endswith(("_error", "_lowest"))}
