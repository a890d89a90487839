"""What all tasks share whose rows are one or two texts and a label."""

import numpy as np

from trainflat.record import Fingerprint
from trainflat.tasks.base import EncodedSplit, Head, Predictions, Task, Tokenizer
from trainflat.tasks.encoding import encode_texts, make_split
from trainflat.tasks.metrics import check_finite, evaluate
from trainflat.tasks.rows import Rows, fingerprints

TEXTS = ("text", "text_pair")
LABEL = "label"


class TextTask(Task):
    """Classification or regression of texts.

    Rows have the columns "text", "text_pair" (pairs only) and "label": an index of ``head.labels``, or a number.

    Args:
        name: As in recipes.
        head: What the model's head must be.
        metrics: Names in :data:`~trainflat.tasks.metrics.METRICS`, the main one first.
        training: Rows to train on.
        evaluation: Rows to score by split, the main one first.
    """

    def __init__(
        self, name: str, head: Head, metrics: tuple[str, ...], training: Rows, evaluation: dict[str, Rows]
    ) -> None:
        self.name, self.head, self.metrics = name, head, metrics
        self.training, self.evaluation = training, evaluation
        self.split, self.metric = next(iter(evaluation)), metrics[0]
        self.fingerprints: dict[str, Fingerprint] = fingerprints(training, evaluation)

    def encode(self, tokenizer: Tokenizer, max_length: int) -> tuple[EncodedSplit, dict[str, EncodedSplit]]:
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
        """Scores in percent.

        Args:
            split: From :meth:`encode`.
            predictions: Logits [N, classes], or [N] or [N, 1] for regression, in the order of the split.

        Raises:
            TrainingDiverged: a prediction is not a number.
        """
        logits = np.asarray(predictions, dtype=np.float64)
        if len(logits) != len(split):
            raise ValueError(f"{split.name} has {len(split)} rows, got predictions for {len(logits)}.")
        check_finite(split.name, logits)
        gold = np.array([row["labels"] for row in split.rows])
        predicted = logits.reshape(len(gold)) if self.head.kind == "regression" else logits.argmax(axis=-1)
        return evaluate(self.metrics, gold, predicted, classes=len(self.head.labels))
