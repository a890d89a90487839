"""Defines the base class of tasks: checked rows, encoded splits, and scores of predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from torch.utils.data import Dataset

from trainflat.records.run import Fingerprint

# The columns of a batch that hold targets. Models are evaluated without them, so that they compute no loss.
ANSWERS = frozenset({"label", "labels", "start_positions", "end_positions"})

Predictions = np.ndarray | tuple[np.ndarray, ...]
"""Logits over a split, row by row: [N, classes], [N] or [N, 1] for regression, (start [N, T], end [N, T]) for spans."""


@dataclass(frozen=True)
class Head:
    """Describes the task head that the model needs."""

    kind: Literal["classification", "regression", "spans"]
    labels: tuple[str, ...] = ()  # class names in index order; empty for regression and spans


class Tokenizer(Protocol):
    """Declares the parts of a transformers tokenizer that tasks use.

    A protocol, so that tests and other libraries need no subclass of ``PreTrainedTokenizerBase``.
    """

    model_max_length: int
    model_input_names: list[str]
    is_fast: bool

    def num_special_tokens_to_add(self, pair: bool = False) -> int: ...

    def __call__(self, *texts: Any, **options: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class EncodedSplit(Dataset[dict[str, Any]]):
    """Holds the token ids of one split, ready for a collator that pads.

    Evaluation splits are sorted by length: a batch then holds rows of nearly one length and little padding.
    """

    name: str
    rows: Sequence[dict[str, Any]]  # input_ids, attention_mask, token_type_ids?, then labels or start/end_positions
    lengths: Sequence[int]  # tokens per row
    extras: Mapping[str, Any] = field(default_factory=dict)  # per row, what score() needs beside the predictions
    order: Sequence[int] = ()  # index in the data set of each row; empty if the rows are in its order

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])  # a copy: collators pop columns from the rows that they are given


@dataclass(frozen=True)
class Decoded:
    """Holds the decoded predictions on a split beside the targets, in the order of the data set.

    In that order, not by length, since confidence margins group neighbouring rows and must not depend on a tokenizer.

    Attributes:
        gold: Targets, one per row.
        predicted: Predictions of the model, one per row.
        constants: Constant predictions by name, such as the majority class; a useful model beats the best of them.
        score: Computes the main score in percent from targets and predictions of any subset of the rows.
    """

    gold: np.ndarray
    predicted: np.ndarray
    constants: Mapping[str, Any]
    score: Callable[[np.ndarray, np.ndarray], float]


class Task(ABC):
    """Provides the data and the scores of one task.

    Attributes:
        name: Name in recipes.
        head: The task head that the model needs.
        split: Evaluation split of the main score.
        metric: Main score; higher is better.
        fingerprints: Fingerprint of every split that was read, the training split (``"train"``) included.
        positive: Positive class of the score "f1" for two-class tasks on a user's own rows; else empty.
        later: Options added after the first release. A recipe that does not set them leaves them out of its hash,
            so that runs recorded before the option existed still count as the same recipe.
        notes: Warnings about the data, as whole sentences, which the plan shows before any score.
    """

    name: str
    head: Head
    split: str
    metric: str
    fingerprints: dict[str, Fingerprint]
    notes: tuple[str, ...] = ()
    positive: str = ""
    later: ClassVar[frozenset[str]] = frozenset()

    def in_order(self, labels: Sequence[str]) -> Self:
        """Returns the task with its classes in the order and spelling of ``labels``, if these are the same classes."""
        del labels
        return self

    @property
    def score_name(self) -> str:
        """Returns the name of the main score; F1 with its positive class."""
        return f"{self.metric} of {self.positive:.60}" if self.metric == "f1" and self.positive else self.metric

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, max_length: int) -> tuple[EncodedSplit, dict[str, EncodedSplit]]:
        """Encodes the training split and every evaluation split, the latter by name.

        Raises:
            InputError: ``max_length`` exceeds the tokenizer's ``model_max_length``, or leaves no room for text.
        """

    @abstractmethod
    def score(self, split: EncodedSplit, predictions: Predictions) -> dict[str, float]:
        """Computes all metrics of one evaluation split in percent, the main one (``self.metric``) included."""

    def decode(self, split: EncodedSplit, predictions: Predictions) -> Decoded | None:
        """Decodes the predictions for confidence margins; None if the task defines none, and scores get no margin."""
        del split, predictions
        return None
