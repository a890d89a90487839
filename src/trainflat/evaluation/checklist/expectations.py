"""What CheckList expects of answers (Ribeiro, Wu, Guestrin, Singh, ACL 2020, arXiv:2005.04118), as plain functions.

The published suites carry their expectations as pickled code; these were written anew from the paper and its notebooks.
Each takes the answers to the examples of one case, in order, and says whether the case passes; None where it does not
apply, and then it is in no rate.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.1  # of a probability, in every expectation that allows for some change
_NEGATIVE, _NEUTRAL = 0, 1  # labels of sentiment, then positive
_BEGINNING = re.compile(r"^((a|an|the|in|at)\b\s*)+", re.IGNORECASE)


@dataclass(frozen=True)
class Answers:
    """Holds the answers to the examples of one case.

    Attributes:
        labels: Predicted classes as the suite counts them, or texts.
        probabilities: [E, C] of the classes; None for texts.
    """

    labels: Sequence[int | str]
    probabilities: np.ndarray | None = None


Labels = Sequence[int | str | None]
Changes = Sequence[tuple[str, str] | None]
Judge = Callable[[Answers, Labels, Changes], bool | None]


@dataclass(frozen=True)
class Expectation:
    """Judges a case.

    Attributes:
        judge: Takes answers, labels and changes; the latter two are empty where the case has none.
        labelled: Whether it needs labels.
        classes: Whether it is about classes, and their probabilities.
        examples: How many a case has, where it must be so many.
    """

    judge: Judge
    labelled: bool = False
    classes: bool = False
    examples: int | None = None


def as_labelled(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects every answer to be its label; examples without one may have any."""
    return all(gold is None or given == gold for given, gold in zip(answers.labels, labels, strict=True))


def as_worded(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects every text to be its label, but for articles, "in" and "at" before it and a full stop behind it.

    The published function strips all of the letters of these words, so that "eat" and "" are one; ours strips words.
    """
    return all(_bare(given) == _bare(gold) for given, gold in zip(answers.labels, labels, strict=True))


def not_negative(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects neutral or positive sentiment."""
    return _NEGATIVE not in answers.labels


def neutral_allowed(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects every label, where a neutral one may be answered positive too."""
    pairs = zip(answers.labels, labels, strict=True)
    return all(given != _NEGATIVE if gold == _NEUTRAL else given == gold for given, gold in pairs)


def same(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects the original's label, or its probability within the tolerance."""
    first, p = answers.labels[0], answers.probabilities
    unchanged = [given == first for given in answers.labels]
    if p is not None:
        unchanged = [u or abs(row[first] - p[0][first]) <= TOLERANCE for u, row in zip(unchanged, p, strict=True)]
    return all(unchanged)


def same_but_changes(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects the original's text, with the word replaced in it that was replaced in the example."""
    first = str(answers.labels[0])
    padded = changes or [None] * len(answers.labels)
    return all(given == _changed(first, change) for given, change in zip(answers.labels, padded, strict=True))


def more_confident(answers: Answers, labels: Labels, changes: Changes) -> bool | None:
    """Expects that the probability of the original's label does not fall."""
    return _monotone(answers, 1)


def less_confident(answers: Answers, labels: Labels, changes: Changes) -> bool | None:
    """Expects that the probability of the original's label does not rise."""
    return _monotone(answers, -1)


def more_positive(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects that p(positive) - p(negative) does not fall."""
    return _shifts(answers, 1)


def less_positive(answers: Answers, labels: Labels, changes: Changes) -> bool:
    """Expects that p(positive) - p(negative) does not rise."""
    return _shifts(answers, -1)


def no_longer_duplicate(answers: Answers, labels: Labels, changes: Changes) -> bool | None:
    """Expects "not duplicate" of all but the original, which must have been answered "duplicate"."""
    first, *others = answers.labels
    return not any(others) if first == 1 else None


def implied(answers: Answers, labels: Labels, changes: Changes) -> bool | None:
    """Expects of three pairs (x, a), (x, b), (a, b): duplicates of one question are each other's, others are not.

    As the suite describes it. The function in its notebook fails every case whose second pair alone is a duplicate,
    and leaves those out whose first alone is one.
    """
    one, other, third = answers.labels
    return None if one == other == 0 else third == (1 if one == other == 1 else 0)


EXPECTATIONS: Mapping[str, Expectation] = {
    "label": Expectation(as_labelled, labelled=True),
    "text": Expectation(as_worded, labelled=True),
    "not-negative": Expectation(not_negative, classes=True),
    "neutral-allowed": Expectation(neutral_allowed, labelled=True, classes=True),
    "same": Expectation(same),
    "same-but-changes": Expectation(same_but_changes),
    "more-confident": Expectation(more_confident, classes=True),
    "less-confident": Expectation(less_confident, classes=True),
    "more-positive": Expectation(more_positive, classes=True),
    "less-positive": Expectation(less_positive, classes=True),
    "no-longer-duplicate": Expectation(no_longer_duplicate, classes=True),
    "implied": Expectation(implied, classes=True, examples=3),
}


def _monotone(answers: Answers, sign: int) -> bool | None:
    """Judges the change of the original's label; None where it cannot fail, or was neutral, of which less is no less.

    Whether it can fail depends on the original alone, so that a case applies to all of its examples or to none.
    """
    p, first = _probabilities(answers), int(answers.labels[0])
    if p.shape[1] == 3 and first == _NEUTRAL:
        return None
    column = p[:, first]
    if column[0] <= TOLERANCE if sign > 0 else column[0] >= 1 - TOLERANCE:
        return None
    return bool((sign * (column[1:] - column[0]) >= -TOLERANCE).all())


def _shifts(answers: Answers, sign: int) -> bool:
    p = _probabilities(answers)
    positive = p[:, -1] - p[:, 0]
    return bool((sign * (positive[1:] - positive[0]) >= -TOLERANCE).all())


def _probabilities(answers: Answers) -> np.ndarray:
    assert answers.probabilities is not None, "suites of texts that ask for classes are refused when they are read"
    return answers.probabilities


def _bare(text: int | str | None) -> str:
    return _BEGINNING.sub("", str(text).strip()).rstrip(".").strip()


def _changed(text: str, change: tuple[str, str] | None) -> str:
    if change is None:
        return text
    old, new = change
    return re.sub(rf"\b{re.escape(old)}\b", lambda _: new, text)
