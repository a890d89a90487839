"""What follows from a diagnosis, in words. Rules of thumb on the numbers at hand, each of which names its reason."""

from collections.abc import Sequence

from trainflat.diagnosis import Diagnosis, Sensitivity
from trainflat.report.words import metric_name, percent

TOLERATED = 1.0  # points of the score that a compressed model may lose
_SHARP = 3.0  # a part is singled out where its loss is this many times the median's


def advice(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """A few sentences on every model, and on two of them beside each other."""
    said = [sentence for one in diagnoses for sentence in _on_one(one, named=len(diagnoses) > 1)]
    return said + [sentence for other in diagnoses[1:] for sentence in _beside(diagnoses[0], other)]


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
    return said + _on_parts(found, who)


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
    pairs = [(v, theirs[k]) for k, v in _figures(one).items() if k in (theirs := _figures(other))]
    flatter = sum(mine < its for mine, its in pairs)
    mine, its = one.kept_to(TOLERATED), other.kept_to(TOLERATED)
    verdict = (
        "as the flatness hypothesis has it"
        if (flatter * 2 - len(pairs)) * (mine - its) > 0
        else (
            "which the flatness hypothesis does not predict"
            if mine != its
            else "so here flatness made no difference to that"
        )
    )
    return [
        f"{one.model} is flatter than {other.model} by {flatter} of {len(pairs)} figures, and keeps its score to "
        f"{percent(mine)} against {percent(its)} without training: {verdict}. One pair of models proves nothing."
    ]


def _figures(found: Diagnosis) -> dict[str, float]:
    return {name: value for measured in found.flatness for name, value in measured.values.items()}
