"""Reads the tasks of GLUE (Wang et al., ICLR 2019, arXiv:1804.07461) that the papers report: all but WNLI and AX."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from trainflat.core.errors import InputError
from trainflat.tasks.base import Head
from trainflat.tasks.labels import Value, read_labels, to_numbers
from trainflat.tasks.rows import Rows
from trainflat.tasks.sources import Source
from trainflat.tasks.splits import arrange
from trainflat.tasks.tables import Table
from trainflat.tasks.text import LABEL, TEXTS, TextTask


@dataclass(frozen=True)
class Spec:
    """Describes one task as the hub's ``nyu-mll/glue`` has it.

    Attributes:
        texts: Columns of the one or two texts, as on the hub.
        labels: Class names in index order; empty for STS-B, a regression from 0 to 5.
        metrics: Metrics that the papers report, the main one first.
        sizes: Official number of rows by split, the training split first.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    sizes: dict[str, int]

    @classmethod
    def of(cls, name: str, texts: str, labels: str, metrics: str, **sizes: int) -> "Spec":
        """Makes a spec from words separated by spaces."""
        return cls(name, tuple(texts.split()), tuple(labels.split()), tuple(metrics.split()), sizes)

    @property
    def head(self) -> Head:
        return Head("classification", self.labels) if self.labels else Head("regression")

    @property
    def source(self) -> Source:
        return Source(self.name, "nyu-mll/glue", self.name, self.sizes)


class Glue(TextTask):
    """Reads a GLUE task by its ``Spec``.

    Args:
        data: Folder given by ``--data``; by default TRAINFLAT_DATA, else the hub.
        seed: Seed of ``holdout`` and ``rows``.
        train: Training split; ``a+b`` joins two.
        evaluate: Evaluation splits, the main one first; by default the official validation splits.
        holdout: Share of the training rows to score instead of ``evaluate``, for tuning.
        rows: Number of training rows to draw; all by default.
    """

    spec: ClassVar[Spec]

    def __init__(
        self,
        *,
        data: Path | None = None,
        seed: int = 0,
        train: str = "train",
        evaluate: list[str] | None = None,
        holdout: float = 0.0,
        rows: int | None = None,
    ) -> None:
        spec = self.spec
        training, evaluation = arrange(
            lambda names: spec.source.rows(names, data, partial(_rows, spec)),
            train=train,
            evaluate=list(spec.sizes)[1:] if evaluate is None else evaluate,
            holdout=holdout,
            rows=rows,
            seed=seed,
            by_class=bool(spec.labels),  # similarities have no strata
        )
        super().__init__(spec.name, spec.head, spec.metrics, training, evaluation)


def _rows(spec: Spec, table: Table, some: bool) -> Rows:
    # Empty texts are allowed, since QQP has some empty questions.
    texts = {key: table.texts(column, allow_empty=True) for key, column in zip(TEXTS, spec.texts, strict=False)}
    values = read_labels(table, LABEL)
    if all(value == -1 for value in values):
        raise InputError(
            f"{table.where} has no labels (all are -1, as in GLUE's test splits). Name a split that has them."
        )
    labels = _classes(spec, table, values) if spec.labels else _similarities(table, values)
    return Rows({**texts, LABEL: labels}, table.source, some)


def _classes(spec: Spec, table: Table, values: list[Value]) -> list[int]:
    # The hub has integers, CSV files made from it often strings, and some copies the names.
    known: dict[Value, int] = {value: i for i, name in enumerate(spec.labels) for value in (i, str(i), name)}
    for row, value in enumerate(values):
        if value not in known:
            names = ", ".join(f"{i} {name}" for i, name in enumerate(spec.labels))
            raise table.fault(row, LABEL, f"{value!r:.60} is out of range. {spec.name} has the labels {names}.")
    return [known[value] for value in values]


def _similarities(table: Table, values: list[Value]) -> list[float]:
    numbers = to_numbers(table, LABEL, values)
    for row, value in enumerate(numbers):
        if not 0 <= value <= 5:
            raise table.fault(row, LABEL, f"{value:g} is out of range. Similarities go from 0 to 5.")
    # The hub stores float32: 3.6 is 3.599999904632568 there but 3.6 in a CSV file, and both need one fingerprint.
    return [round(value, 5) for value in numbers]


class Cola(Glue):
    """CoLA: is the sentence acceptable English? Matthews correlation."""

    spec = Spec.of("cola", "sentence", "unacceptable acceptable", "matthews accuracy", train=8551, validation=1043)


class Mrpc(Glue):
    """MRPC: do two sentences of the news say the same? Accuracy and F1."""

    spec = Spec.of(
        "mrpc", "sentence1 sentence2", "not_equivalent equivalent", "accuracy f1", train=3668, validation=408
    )


class Rte(Glue):
    """RTE: does one text entail the other? Accuracy."""

    spec = Spec.of("rte", "sentence1 sentence2", "entailment not_entailment", "accuracy", train=2490, validation=277)


class Stsb(Glue):
    """STS-B: how similar are two sentences, from 0 to 5? Pearson and Spearman correlation."""

    spec = Spec.of("stsb", "sentence1 sentence2", "", "pearson spearman", train=5749, validation=1500)


class Sst2(Glue):
    """SST-2: is a snippet of a film review positive? Accuracy."""

    spec = Spec.of("sst2", "sentence", "negative positive", "accuracy", train=67349, validation=872)


class Qnli(Glue):
    """QNLI: does the sentence answer the question? Accuracy."""

    spec = Spec.of("qnli", "question sentence", "entailment not_entailment", "accuracy", train=104743, validation=5463)


class Qqp(Glue):
    """QQP: do two questions ask the same? Accuracy and F1."""

    spec = Spec.of(
        "qqp", "question1 question2", "not_duplicate duplicate", "accuracy f1", train=363846, validation=40430
    )


class Mnli(Glue):
    """MNLI: entailment, neutral or contradiction? Accuracy, matched and mismatched."""

    spec = Spec.of(
        "mnli",
        "premise hypothesis",
        "entailment neutral contradiction",
        "accuracy",
        train=392702,
        validation_matched=9815,
        validation_mismatched=9832,
    )
