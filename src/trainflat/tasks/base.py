"""Defines the base class of tasks: checked rows, encoded splits, and scores of predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from torch.utils.data import Dataset

from trainflat.records.run import Fingerprint

ANSWERS = frozenset({"label", "labels", "start_positions", "end_positions"})  # what a batch holds beside the question

Predictions = np.ndarray | tuple[np.ndarray, ...]
"""Logits over a split, row by row: [N, classes], [N] or [N, 1] for regression, (start [N, T], end [N, T]) for spans."""


@dataclass(frozen=True)
class Head:
    """Describes the task head that the model needs."""

    kind: Literal["classification", "regression", "spans"]
    labels: tuple[str, ...] = ()  # names of the classes, in index order


class Tokenizer(Protocol):
    """Declares the parts of a transformers tokenizer that tasks use."""

    model_max_length: int
    model_input_names: list[str]
    is_fast: bool

    def num_special_tokens_to_add(self, pair: bool = False) -> int: ...

    def __call__(self, *texts: Any, **options: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class EncodedSplit(Dataset[dict[str, Any]]):
    """Holds the token ids of one split, ready for a collator that pads.

    Evaluation splits are stored in order of length, so that batches in sequence hold rows of one length.
    """

    name: str
    rows: Sequence[
        dict[str, Any]
    ]  # input_ids, attention_mask, token_type_ids?, labels | start_positions, end_positions
    lengths: Sequence[int]  # tokens per row
    extras: Mapping[str, Any] = field(default_factory=dict)  # what the task's score() needs beside the rows
    order: Sequence[int] = ()  # place of each row in the data; empty: as they are

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


@dataclass(frozen=True)
class Answered:
    """Holds the answers on a split in the order of the data.

    Attributes:
        gold: What is right.
        given: What the model answered.
        blind: Answers that ignore the text, by what they are called; the best of them is what a model must beat.
        judge: Gives the main score in percent, of all rows or of some.
    """

    gold: np.ndarray
    given: np.ndarray
    blind: Mapping[str, Any]
    judge: Callable[[np.ndarray, np.ndarray], float]


class Task(ABC):
    """Offers the data and the scores of one task.

    Attributes:
        name: As in recipes.
        head: What the model's head must be.
        split: The evaluation split of the main score.
        metric: The main score; higher is better.
        fingerprints: Per split that was read, also the training split (``"train"``).
        positive: The class that the score "f1" is of, where the user's own rows have two; "" says nothing.
        later: Options that came later. A recipe that does not set one leaves it out, and keeps its hash.
        notes: Sentences on the data that people must read before they trust a score.
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
        """Returns the task with its classes in order and spelling of ``labels``, where these are the same."""
        del labels
        return self

    @property
    def score_name(self) -> str:
        """The main score in words, with the positive class of F1."""
        return f"{self.metric} of {self.positive:.60}" if self.metric == "f1" and self.positive else self.metric

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, max_length: int) -> tuple[EncodedSplit, dict[str, EncodedSplit]]:
        """Encodes the training split and every evaluation split, by name.

        Raises:
            InputError: ``max_length`` is more than the tokenizer's model takes or leaves no room for text.
        """

    @abstractmethod
    def score(self, split: EncodedSplit, predictions: Predictions) -> dict[str, float]:
        """Computes all metrics of one evaluation split in percent, the main one (``self.metric``) among them."""

    def answered(self, split: EncodedSplit, predictions: Predictions) -> Answered | None:
        """Returns the answers behind the main score; None if a task has none, whose scores then get no margin."""
        del split, predictions
        return None
