"""Says of every panel which model to ship and what flatness was worth, by rules that are plain.

Ship: the smallest model on disk whose mean score lies at most ``TOLERATED`` points below the best dense one's, or
within one standard error of that where it is more; of models within a hundredth of the smallest, the one with the
highest score. Where nothing dense was scored, the teacher stands for it. Scores that a constant answer
reaches do not count.

Flatness: each flat optimizer less the optimizer that it is based on, paired by seed and rows (``paired``), at the
sparsity where methods part. There the difference is largest by choice, which an interval does not know: a difference
that it tells apart has to be seen again on other seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from trainflat.core.formatting import plural
from trainflat.core.listing import option_defaults
from trainflat.report.options import BASES, completed
from trainflat.report.paired import paired_points, sentence
from trainflat.report.panels import Line, Panel, Point, at, optimizer_section, traits
from trainflat.report.sizes import shapes, speedup, stored
from trainflat.report.words import spread, times

TOLERATED = 1.0  # points of the score
_ALIKE = 1.01  # sizes that differ by less are one
_DEAD = 0.5  # share of the panel's best score, below which a sparsity tells nothing of methods
_SAID = 3  # comparisons in a verdict
Model = tuple[Line, Point]


@dataclass(frozen=True)
class Verdict:
    """Holds the sentences on one panel."""

    panel: Panel
    ship: str
    flat: Sequence[str]


def verdict(panel: Panel) -> Verdict | None:
    """Returns what to do about a panel; None where nothing was scored."""
    models = [(line, point) for line in panel.lines for point in line.points if mean_of(point) is not None]
    return Verdict(panel, _ship(panel, models), _flatness(panel)) if models else None


def parting(panel: Panel) -> float | None:
    """Returns the sparsity at which the scores of methods lie furthest apart, while the best of them still stands.

    Of several, the sparser one; where there is one method, the sparsest at which it stands. None without scores.
    """
    scores = {target: _scores(panel, target) for target in panel.targets}
    best = max((max(found) for found in scores.values() if found), default=0.0)
    alive = [target for target, found in scores.items() if found and max(found) >= _DEAD * best]
    several = [target for target in alive if len(scores[target]) > 1]
    if not several:
        return alive[-1] if alive else None
    return max(several, key=lambda target: (round(max(scores[target]) - min(scores[target]), 6), target))


def chosen(panel: Panel) -> Model | None:
    """Returns the model to ship; None where every one loses too much."""
    found = _reference(panel)
    models = [(line, point) for line in panel.lines for point in line.points if mean_of(point) is not None]
    kept = [model for model in models if found and _mean(model) >= found[1] - found[2] and not model[1].remarks]
    if not kept:
        return None
    smallest = min(map(_size, kept))
    return max((model for model in kept if _size(model) <= _ALIKE * smallest), key=_mean)


def mean_of(point: Point) -> float | None:
    """Returns the mean main score over seeds, if it was measured."""
    return point.score.mean if point.score else None


def _scores(panel: Panel, target: float) -> list[float]:
    found = [mean_of(point) for line in panel.lines if (point := at(line, target))]
    return [score for score in found if score is not None]


def _mean(model: Model) -> float:
    return mean_of(model[1]) or 0.0


def _size(model: Model) -> float:
    found = stored(model[1])
    return found.mean if found else 0.0


def teacher_score(panel: Panel) -> float | None:
    """Returns the main score of the teachers of a panel, their mean; None where there is none."""
    teachers = [record.teacher for record in panel.records if record.teacher]
    found = [each.scores.get(panel.split, {}).get(panel.metric) for each in teachers]
    known = [score for score in found if score is not None]
    return fmean(known) if known else None


def _reference(panel: Panel) -> tuple[str, float, float] | None:
    """Returns what others are measured by, its score, and the points that may be lost."""
    dense = [score for line in panel.lines if (point := at(line, 0.0)) and (score := point.score)]
    if dense:
        best = max(dense, key=lambda score: score.mean)
        return "dense", best.mean, max(TOLERATED, (best.std or 0.0) / sqrt(best.n))
    teacher = teacher_score(panel)
    return None if teacher is None else ("teacher", teacher, TOLERATED)


def _ship(panel: Panel, models: Sequence[Model]) -> str:
    found, model = _reference(panel), chosen(panel)
    if model is None:
        line, point = max(models, key=_mean)
        why = f"nothing is within {found[2]:.1f} of the {found[0]} ({found[1]:z.1f})" if found else "nothing is dense"
        return f"Ship none: {why}. Best is {_named(line, point)}: {_weighed(panel, point)}."
    line, point = model
    told = f"Ship {_named(line, point)}: {_weighed(panel, point)}"
    if point.target == 0 and panel.targets[-1] > 0:
        return f"{told}; all that is smaller loses more than {found[2] if found else TOLERATED:.1f} points."
    return f"{told}; {found[0]} {found[1]:z.1f}." if found and point.target else f"{told}."


def _named(line: Line, point: Point) -> str:
    return f"{line.label} at {point.title}" if point.target else f"{line.label}, dense"


def _weighed(panel: Panel, point: Point) -> str:
    score, size = point.score, stored(point)
    assert score is not None  # callers looked
    told = [spread(score.mean, score.std) + (" (one seed)" if score.n == 1 else "")]
    told += [f"{size.mean:.0f} MB"] if size else []
    fast = speedup(point, shapes(panel)[-1]) if point.target and shapes(panel) else None
    return ", ".join([*told, *([f"{fast.mean:.1f} × as fast"] if fast else [])])


def _flatness(panel: Panel) -> list[str]:
    """Compares each flat optimizer with its base, the best first."""
    target = parting(panel)
    if target is None:
        return []
    pairs = [(line, base) for line in panel.lines if (base := _base(panel, line))]
    found = sorted(pairs, key=lambda pair: -_at(pair[0], target))
    told = [said for line, base in found if (said := _compared(line, base, target))]
    return told[:_SAID] + (
        [f"{plural(len(told) - _SAID, 'more flat optimizer')}: see below."] if len(told) > _SAID else []
    )


def _at(line: Line, target: float) -> float:
    point = at(line, target)
    return _mean((line, point)) if point else 0.0


def _compared(line: Line, base: Line, target: float) -> str:
    one, other = at(line, target), at(base, target)
    difference = paired_points(one, other) if one and other else None
    if one is None or other is None or difference is None:
        return ""
    ratio = _passes(one) / _passes(other) if _passes(other) else 0.0
    cost = f", at {times(ratio)} passes" if ratio else ""
    return f"Flatness: {sentence(difference, line.label, base.label, one.title)}{cost}."


def _passes(point: Point) -> float:
    found = point.over_seeds(lambda _, stage: stage.training.passes if stage.training else None)
    return found.mean if found else 0.0


def _base(panel: Panel, line: Line) -> Line | None:
    """Returns the line of the optimizer that a flat one is based on, which differs from it in the fewest settings."""
    if line.optimizer in BASES or line.optimizer not in option_defaults("optimizers"):
        return None
    name = completed(optimizer_section(line.records[0])).get("base")
    own = dict(traits(line.records[0]))
    bases = [other for other in panel.lines if other.optimizer == name]

    def differing(other: Line) -> int:
        theirs = dict(traits(other.records[0]))
        return sum(own.get(key) != theirs.get(key) for key in own.keys() | theirs.keys())

    return min(bases, key=differing, default=None)
