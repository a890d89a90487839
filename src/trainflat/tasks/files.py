"""A user's own rows: one or two texts and a label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trainflat.errors import InputError, UnknownName
from trainflat.tasks.base import Head
from trainflat.tasks.labels import (
    Value,
    class_indices,
    class_name,
    is_number,
    may_be_numbers,
    read_labels,
    to_numbers,
)
from trainflat.tasks.metrics import CLASSIFICATION, METRICS, REGRESSION
from trainflat.tasks.rows import Rows, arrange
from trainflat.tasks.tables import Table, read_table
from trainflat.tasks.text import LABEL, TEXTS, TextTask

Kind = Literal["classification", "regression"]

SHARE = 0.1  # held out where no validation file is given
FEW = 20  # different numbers that are taken for classes without asking


class Files(TextTask):
    """A user's own files (CSV, TSV, JSON lines, JSON, parquet): classification or regression of one or two texts.

    Args:
        data: Folder that relative paths start from; by default the current one.
        seed: Draws ``holdout`` and ``rows``.
        train_file: Rows to train on.
        validation_file: Rows to score, others than those; without it a tenth of the training rows is held out.
        text: Column of the text, or the columns of two.
        label: Column of the label, which is no column of a text.
        kind: By default regression if the labels are numbers with a fraction or a decimal point, else classification:
            words, truth values, whole numbers up to 20 different ones, and codes, as
            :func:`~trainflat.tasks.labels.read_labels` tells them (``007``, ``01.11``, ``+1``, ``3E2``).
        metric: Main score: accuracy, f1 (of the second class, or macro), matthews; pearson, spearman.
        holdout: Share of the training rows to score instead of the validation file, for tuning.
        rows: Train only on this many rows.
    """

    def __init__(
        self,
        *,
        train_file: str,
        validation_file: str | None = None,
        text: str | list[str] = "text",
        label: str = "label",
        kind: Kind | None = None,
        metric: str | None = None,
        holdout: float = 0.0,
        rows: int | None = None,
        data: Path | None = None,
        seed: int = 0,
    ) -> None:
        texts = _text_columns(text, label)
        if kind not in (None, "classification", "regression"):
            raise UnknownName("kind of task", kind, ("classification", "regression"))
        if validation_file == "":
            raise InputError("validation_file is '', which names no file. Leave it out to hold out training rows.")
        if validation_file is not None:
            _check_apart(_path(data, train_file), _path(data, validation_file))
        table = read_table(_path(data, train_file))
        values = read_labels(table, label)
        kind = kind or _infer(table, label, values)
        metrics = _metrics(kind, metric)
        classes = _classes(table, label, values) if kind == "classification" else []
        _check_spread(table, label, classes or to_numbers(table, label, values))

        def read(split: str) -> Rows:
            part = table if split == "train" else _read_other(_path(data, str(validation_file)), table)
            labels = values if split == "train" else read_labels(part, label)
            columns = {key: part.texts(column) for key, column in zip(TEXTS, texts, strict=False)}
            return Rows({**columns, LABEL: _targets(part, label, labels, kind, classes)}, part.source)

        training, evaluation = arrange(
            read,
            train="train",
            evaluate=["validation"],
            holdout=holdout or (0.0 if validation_file else SHARE),
            rows=rows,
            seed=seed,
            by_class=kind == "classification",
        )
        if not holdout:  # what is held out for want of a validation file is no part of an official split
            evaluation = {name: part.whole() for name, part in evaluation.items()}
            training = training.whole() if rows is None else training
        head = Head(kind, tuple(map(class_name, classes)))
        super().__init__("files", head, metrics, training, evaluation)


def _text_columns(text: str | list[str], label: str) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not 1 <= len(texts) <= 2:
        raise InputError(f"text is the column of the text or the columns of two, got {len(texts)} columns.")
    if label in texts:
        raise InputError(f"text and label are both the column {label!r}. Name another: a text must not be its answer.")
    if len(set(texts)) < len(texts):
        raise InputError(f"text names the column {texts[0]!r} twice. Name it once, or two columns.")
    return texts


def _path(folder: Path | None, name: str) -> Path:
    try:
        return (folder or Path()) / Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name:.200} cannot be read: there is no such user. Write the whole path.") from error


_LEAK = "Scores on rows that were trained on tell nothing: name other rows, or leave validation_file out."


def _check_apart(training: Path, validation: Path) -> None:
    try:
        same = training.samefile(validation)
    except (OSError, ValueError):
        return  # one of them is not there, which reading it says better
    if same:
        raise InputError(f"train_file {training} and validation_file {validation} are one file. {_LEAK}")


def _read_other(path: Path, training: Table) -> Table:
    table = read_table(path)
    if table.columns == training.columns:
        raise InputError(f"train_file {training.where} and validation_file {path} hold the same rows. {_LEAK}")
    return table


def _infer(table: Table, label: str, values: Sequence[Value]) -> Kind:
    if isinstance(values[0], float):
        return "regression"
    odd = [row for row, value in enumerate(values) if not is_number(value)]
    if isinstance(values[0], str) and 0 < len(odd) < len(values) / 2:
        problem = (
            f"the label {values[odd[0]]!r:.60} is not a number, as most are. Correct it, or set kind to classification."
        )
        raise table.fault(odd[0], label, problem)
    different = len(set(values))
    if different > FEW and may_be_numbers(values):
        what = f"labels like {values[0]!r:.60}" if isinstance(values[0], str) else "integers"
        raise InputError(
            f"{table.where}: column {label!r} has {different} different {what}, which may be classes or numbers. "
            "Set kind to classification or regression."
        )
    return "classification"


def _classes(table: Table, label: str, values: Sequence[Value]) -> list[Value]:
    """The different labels in order, numbers by size and strings by code point."""
    classes: list[Value] = sorted(set(values))  # all of one kind
    if len(classes) == len(values) and len(values) > 2:
        raise InputError(
            f"{table.where}: column {label!r} has another class in each of its {len(values)} rows. "
            "Name the column of the labels."
        )
    return classes


def _check_spread(table: Table, label: str, values: Sequence[Value]) -> None:
    if len(set(values)) < 2:
        raise InputError(f"{table.where}: column {label!r} holds only {values[0]!r:.60}. Add rows with other labels.")


def _metrics(kind: Kind, metric: str | None) -> tuple[str, ...]:
    fitting = CLASSIFICATION if kind == "classification" else REGRESSION
    if metric is None:
        return tuple(fitting)
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    if metric not in fitting:
        raise InputError(f"the metric {metric} does not fit {kind}. Use one of {', '.join(fitting)}.")
    return (metric, *(name for name in fitting if name != metric))


def _targets(
    table: Table, label: str, values: Sequence[Value], kind: Kind, classes: Sequence[Value]
) -> list[int] | list[float]:
    if kind == "classification":
        return class_indices(table, label, values, classes)
    return to_numbers(table, label, values)
