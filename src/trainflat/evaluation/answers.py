"""Computes the margin of a score, and compares it with the best constant answer."""

from collections import Counter
from typing import Any

import numpy as np

from trainflat.core.margins import Answers, Score, difference, groups
from trainflat.tasks.base import Decoded, EncodedSplit, Predictions, Task
from trainflat.tasks.metrics import is_constant


def main_score(task: Task, split: EncodedSplit, predictions: Predictions) -> tuple[Score, Answers | None]:
    """Computes the task's main score with its margin, and what the answers are worth beside a blind one.

    Args:
        task: That the predictions are for.
        split: From the task's ``encode``, or some of its rows.
        predictions: Logits in the order of the split.
    """
    found = task.decode(split, predictions)
    if found is None:
        return Score(value=task.score(split, predictions)[task.metric], rows=len(split), metric=task.metric), None
    mine = _scored(task, found, found.predicted)
    fixed = {name: np.full_like(found.predicted, answer) for name, answer in found.constants.items()}
    blind = max(fixed, key=lambda name: found.score(found.gold, fixed[name]))
    bar = _scored(task, found, fixed[blind])
    above = difference(mine, bar)
    return mine, Answers(
        rows=mine.rows,
        constant=_constant(found),
        common=_called(task, Counter(found.predicted.tolist()).most_common(1)[0][0]),
        blind=blind,
        baseline=bar.value,
        low=above.low,
        high=above.high,
    )


def _scored(task: Task, found: Decoded, given: np.ndarray) -> Score:
    parts = [np.delete(np.arange(len(given)), group) for group in groups(len(given))]
    without = [found.score(found.gold[part], given[part]) for part in parts]
    value = found.score(found.gold, given)
    return Score(value=value, rows=len(given), metric=task.metric, without=without)


def _constant(found: Decoded) -> bool:
    if found.predicted.dtype.kind == "f":
        return is_constant(found.gold, found.predicted)
    return len(set(found.predicted.tolist())) == 1


def _called(task: Task, answer: Any) -> str:
    """Returns at most 60 letters of a text."""
    text = task.head.labels[answer] if task.head.labels else answer
    return f"{text:z.2f}" if isinstance(text, float) else str(text)[:60] or "empty"
