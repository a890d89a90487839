"""Puts the examples of a suite to the models of one task."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.evaluation.checklist.expectations import Answers
from trainflat.evaluation.checklist.suites import KEY, Case, Example, Kind
from trainflat.evaluation.predictions import predictions_of
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.tasks.encoding import encode_texts, make_split
from trainflat.tasks.labels import canonical
from trainflat.tasks.repeats import TEXTS
from trainflat.tasks.squad import Squad
from trainflat.tasks.text import TextTask

# Names of classes in the order in which suites count them, by which a task's are found.
_NAMES: dict[str, tuple[set[str], ...]] = {
    "sentiment": ({"negative", "neg"}, {"neutral"}, {"positive", "pos"}),
    "paraphrase": ({"not_duplicate", "not_equivalent", "not_paraphrase"}, {"duplicate", "equivalent", "paraphrase"}),
}
_ORDER = {"sentiment": "negative, neutral if there is one, positive", "paraphrase": "no paraphrase, paraphrase"}


class Questions:
    """Holds the examples of a suite's cases as a task's models read them; each text is asked once, wherever it occurs.

    Args:
        task: Whose models are asked; see :func:`check_task`.
        kind: Of the suite.
        cases: As they were drawn.
        tokenizer: Of all models.
        max_length: Tokens per row, as in training.
        labels: The task's classes in the order of the suite's; None finds them by their names.

    Raises:
        InputError: the task is of another kind.
    """

    def __init__(
        self,
        task: Task,
        kind: Kind,
        cases: Sequence[Case],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.places = check_task(task, kind, labels)
        self.kind, self.cases, self.tokenizer = kind, cases, tokenizer
        examples = list(dict.fromkeys(example for case in cases for example in case.examples))
        self._place: dict[Example, int] = {example: place for place, example in enumerate(examples)}
        columns: list[list[Any]] = (
            [examples] if kind == "sentiment" else [list(one) for one in zip(*examples, strict=True)]
        )
        self._task = task
        if isinstance(task, Squad):
            self._task = task.asking(*columns)
            self._split: EncodedSplit = self._task.encode_evaluation(tokenizer, max_length)[self._task.split]
        else:
            self._split = make_split("suite", list(encode_texts(tokenizer, columns, max_length)), by_length=True)

    def ask(self, model: PreTrainedModel, progress: Progress | None = None) -> list[Answers]:
        """Returns a model's answers to every case."""
        progress = progress or Progress()
        progress.begin("putting behavioural tests to the model", len(self._split))
        found = predictions_of(model, self._split, self.tokenizer, progress=lambda done, _: progress.advance(done))
        progress.end()
        if isinstance(self._task, Squad):
            texts = self._task.answers(self._split, found)
            return [Answers([texts[i] for i in at]) for at in self._at]
        p = self._probabilities(np.asarray(found, dtype=np.float64))
        return [Answers(p[at].argmax(axis=1).tolist(), p[at]) for at in self._at]

    @cached_property
    def _at(self) -> list[list[int]]:
        return [[self._place[example] for example in case.examples] for case in self.cases]

    def _probabilities(self, logits_NC: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the suite's classes, in the order of the examples."""
        unsorted = np.argsort(self._split.order, kind="stable")
        p = softmax(logits_NC, axis=-1)[unsorted][:, self.places]
        return with_neutral(p[:, 1]) if self.kind == "sentiment" and p.shape[1] == 2 else p


def with_neutral(positive_N: np.ndarray) -> np.ndarray:
    """Makes three classes of a two-class model's probability of positive, as the notebook of the suite does.

    Between 1/3 and 2/3 a text is neutral, with :math:`1 - 3 |p - 1/2|`, and the rest goes to the nearer side. At the
    two ends, where that notebook gives no probability at all, a text is not neutral.

    Returns:
        [N, 3]: negative, neutral, positive.

    Example:
        >>> with_neutral(np.array([0.25, 0.5, 0.6])).round(2).tolist()
        [[0.75, 0.0, 0.25], [0.0, 1.0, 0.0], [0.0, 0.7, 0.3]]
    """
    distance = np.abs(positive_N - 0.5)
    between, neutral = distance < 1 / 6, 1 - 3 * distance
    inside = np.stack([(1 - neutral) * (positive_N < 0.5), neutral, (1 - neutral) * (positive_N >= 0.5)], axis=1)
    outside = np.stack([1 - positive_N, np.zeros_like(positive_N), positive_N], axis=1)
    return np.where(between[:, None], inside, outside)


def check_task(task: Task, kind: Kind, labels: Sequence[str] | None) -> list[int]:
    """Checks that a suite is for a task, and finds the index of the task's class for each of the suite's.

    Raises:
        InputError: the task is of another kind, or its classes cannot be told by their names.
    """
    wanted = {"sentiment": "one text and classes", "paraphrase": "two texts and classes", "reading": "spans"}[kind]
    if kind == "reading":
        fits = isinstance(task, Squad)
    else:
        texts = sum(key in task.training.columns for key in TEXTS) if isinstance(task, TextTask) else 0
        fits = task.head.kind == "classification" and texts in (0, 1 if kind == "sentiment" else 2)
    if not fits:
        raise InputError(f"{KEY}: a suite of kind {kind} is for tasks with {wanted}, and {task.name} is not one.")
    return [] if kind == "reading" else _places(task, kind, labels)


def _places(task: Task, kind: Kind, labels: Sequence[str] | None) -> list[int]:
    known = [canonical(name) for name in task.head.labels]
    groups = _NAMES[kind] if labels is None else tuple({canonical(name)} for name in labels)
    found = [next((i for i, name in enumerate(known) if name in group), None) for group in groups]
    places = [place for place in found if place is not None]
    missing = None in (found if labels else (found[0], found[-1]))  # only neutral may be
    if missing or sorted(places) != list(range(len(known))) or not 2 <= len(places) <= len(_NAMES[kind]):
        raise InputError(
            f"{KEY}: the classes of {task.name} ({', '.join(task.head.labels):.100}) are not known to a {kind} suite. "
            f"Name them with {KEY}.labels in this order: {_ORDER[kind]}."
        )
    return places
