"""Defines the base class of tasks whose rows are one or two texts and a label."""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import Self

import numpy as np

from trainflat.core.formatting import plural
from trainflat.records.run import Fingerprint
from trainflat.tasks.base import Decoded, EncodedSplit, Head, Predictions, Task, Tokenizer
from trainflat.tasks.encoding import encode_texts, make_split
from trainflat.tasks.labels import match_names
from trainflat.tasks.metrics import check_finite, evaluate
from trainflat.tasks.repeats import TEXTS, repeat_notes
from trainflat.tasks.rows import LABEL, Rows, fingerprints


class TextTask(Task):
    """Classifies or scores one text or a pair of texts.

    Rows have the columns "text", "text_pair" (pairs only) and "label": an index of ``head.labels``, or a number.

    Args:
        name: Name in recipes.
        head: The task head that the model needs.
        metrics: Names in :data:`~trainflat.tasks.metrics.METRICS`, the main one first.
        training: Training rows.
        evaluation: Evaluation rows by split, the main one first.
        notes: Warnings about the data; those about repeated texts are added here.
        positive: Index of the positive class of "f1", for two classes.
    """

    def __init__(
        self,
        name: str,
        head: Head,
        metrics: tuple[str, ...],
        training: Rows,
        evaluation: dict[str, Rows],
        *,
        notes: Sequence[str] = (),
        positive: int = 1,
    ) -> None:
        self.name, self.head, self.metrics = name, head, metrics
        self.training, self.evaluation = training, evaluation
        self.split, self.metric = next(iter(evaluation)), metrics[0]
        self.fingerprints: dict[str, Fingerprint] = fingerprints(training, evaluation)
        self._positive = positive
        self.notes = (*notes, *repeat_notes(training, evaluation, head.labels))

    def encode(self, tokenizer: Tokenizer, max_length: int) -> tuple[EncodedSplit, dict[str, EncodedSplit]]:
        # Training rows keep the order of the data: the Trainer shuffles them, and its seed must give the same batches
        # with any tokenizer.
        training = self._encode("train", self.training, tokenizer, max_length)
        return training, {
            name: self._encode(name, rows, tokenizer, max_length, by_length=True)
            for name, rows in self.evaluation.items()
        }

    def _encode(
        self, name: str, rows: Rows, tokenizer: Tokenizer, max_length: int, *, by_length: bool = False
    ) -> EncodedSplit:
        texts = [rows.columns[key] for key in TEXTS if key in rows.columns]
        encoded = encode_texts(tokenizer, texts, max_length)
        labelled = [{**row, "labels": label} for row, label in zip(encoded, rows.columns[LABEL], strict=True)]
        return make_split(name, labelled, by_length=by_length)

    def score(self, split: EncodedSplit, predictions: Predictions) -> dict[str, float]:
        """Computes the scores in percent.

        Args:
            split: Evaluation split from :meth:`encode`.
            predictions: Logits [N, classes], or [N] or [N, 1] for regression, in the order of the split.

        Raises:
            TrainingDiverged: a prediction is NaN or infinite.
        """
        gold, predicted = self._compared(split, predictions)
        return self._evaluate(self.metrics, gold, predicted)

    def _evaluate(self, metrics: Sequence[str], gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        return evaluate(metrics, gold, predicted, classes=len(self.head.labels), positive=self._positive)

    def in_order(self, labels: Sequence[str]) -> Self:
        """Returns the task with reordered classes; see :meth:`Task.in_order`."""
        places = match_names(self.head.labels, labels)
        if places is None or tuple(labels) == self.head.labels:
            return self
        moved = copy(self)  # fingerprints stay: they identify the rows as read
        moved.head = Head(self.head.kind, tuple(labels))
        moved.training = self.training.relabel(places)
        moved.evaluation = {name: rows.relabel(places) for name, rows in self.evaluation.items()}
        moved._positive = places[self._positive] if len(places) == 2 else self._positive
        return moved

    def decode(self, split: EncodedSplit, predictions: Predictions) -> Decoded:
        """Decodes the predictions; see :meth:`Task.decode`.

        Constant predictions to beat are the two most frequent classes, since F1 of two classes rewards always
        predicting the positive class even if it is the rarer one; for regression the mean.
        """
        gold, predicted = self._compared(split, predictions)
        # The inverse of the permutation that sorted the rows by length.
        places = np.argsort(split.order, kind="stable") if split.order else np.arange(len(gold))
        frequent = [index for index, _ in Counter(gold.tolist()).most_common(2)] if self.head.labels else []
        constants = {self.head.labels[index]: index for index in frequent} or {"the mean": float(gold.mean())}

        def score(gold: np.ndarray, predicted: np.ndarray) -> float:
            return self._evaluate((self.metric,), gold, predicted)[self.metric]

        return Decoded(gold[places], predicted[places], constants, score)

    def _compared(self, split: EncodedSplit, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
        """Returns target and predicted classes or numbers, in the order of the split."""
        logits = np.asarray(predictions, dtype=np.float64)  # float32 sums of correlations lose digits
        if len(logits) != len(split):
            raise ValueError(f"{split.name} has {plural(len(split), 'row')}, got predictions for {len(logits)}.")
        check_finite(split.name, logits)
        gold = np.array([row["labels"] for row in split.rows])
        return gold, logits.reshape(len(gold)) if self.head.kind == "regression" else logits.argmax(axis=-1)
