"""Reads a user's own rows: one or two texts and a label."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.tasks.base import Head
from trainflat.tasks.labels import Value, class_indices, class_name, leave_out, read_labels, to_numbers
from trainflat.tasks.meaning import (
    Kind,
    by_number,
    check_classes,
    find_classes,
    find_positive,
    infer_kind,
    meaning_notes,
)
from trainflat.tasks.metrics import CLASSIFICATION, METRICS, REGRESSION
from trainflat.tasks.opening import Shape
from trainflat.tasks.rows import Rows
from trainflat.tasks.splits import arrange
from trainflat.tasks.tables import Table, read_table
from trainflat.tasks.text import LABEL, TEXTS, TextTask

SHARE = 0.1  # held out where no validation file is given


class Files(TextTask):
    """A user's own files (CSV, TSV, JSON lines, JSON, parquet): classification or regression of one or two texts.

    Args:
        data: Folder that relative paths start from; by default the current one.
        seed: Draws ``holdout`` and ``rows``.
        train_file: Rows to train on.
        validation_file: Rows to score, others than those; without it a tenth of the training rows is held out.
        text: Column of the text, or the columns of two.
        label: Column of the label, which is no column of a text.
        kind: By default regression if the labels are numbers with a fraction, else classification: words, truth values,
            whole numbers up to 20 different ones, and codes, as :func:`~trainflat.tasks.labels.read_labels` tells them
            (``007``, ``01.11``, ``+1``, ``3E2``). What may be either (``0.0``, ``1.0``) must be said.
        metric: Main score: accuracy, f1 (of the class ``positive``, or macro), matthews; pearson, spearman.
        holdout: Share of the training rows to score instead of the validation file, for tuning.
        rows: Train only on this many rows.
        classes: The classes in order, matched whatever their capitals and spaces; rows may also number those listed,
            from 0. By default those of the training rows, numbers by size and words by the alphabet.
        positive: Of two classes the one that f1 is of; by default the second.
        missing: The label, or labels, of rows that have none and are left out, such as -1; "" also means null and NaN.
        columns: Names of the columns of delimited files without a header; those called "" are not read.
        separator: Between the fields of delimited files, such as ";" or tab; by default as found.
        encoding: Of the files; by default UTF-8, or as a byte order mark tells.
        large: Read also files of more than 5 million rows, of more than a GB, and what unpacks to 200 times its size.
    """

    later: ClassVar = frozenset({"classes", "positive", "missing", "columns", "separator", "encoding", "large"})

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
        classes: list[Value] | None = None,
        positive: Value | None = None,
        missing: Value | list[Value] | None = None,
        columns: list[str] | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        large: bool | None = None,
        data: Path | None = None,
        seed: int = 0,
    ) -> None:
        texts = _text_columns(text, label)
        if kind not in (None, "classification", "regression"):
            raise UnknownName("kind of task", kind, ("classification", "regression"))
        if classes is not None and kind == "regression":
            raise InputError("classes are for classification, and kind is regression. Leave one of the two out.")
        if validation_file == "":
            raise InputError("validation_file is '', which names no file. Leave it out to hold out training rows.")
        if validation_file is not None:
            _check_apart(_path(data, train_file), _path(data, validation_file))
        shape = Shape(None if columns is None else tuple(columns), separator, encoding, bool(large))
        unlabelled = missing if isinstance(missing, list) else [] if missing is None else [missing]
        whole = read_table(_path(data, train_file), shape)
        table = leave_out(whole, label, unlabelled)
        values = read_labels(table, label)
        listed = None if classes is None else check_classes(classes)
        settled = kind or ("classification" if listed else infer_kind(table, label, values))
        metrics = _metrics(settled, metric)
        known = (listed or find_classes(table, label, values)) if settled == "classification" else []
        _check_spread(table, label, known or to_numbers(table, label, values))
        first = find_positive(positive, known)
        notes = [*table.notes, *meaning_notes(values, known, kind=kind, order=listed is not None)]

        def read(split: str) -> Rows:
            part = table
            if split != "train":
                part = leave_out(_read_other(_path(data, str(validation_file)), shape, whole), label, unlabelled)
                notes.extend(part.notes)
            labels = values if split == "train" else read_labels(part, label)
            named = {key: part.texts(column) for key, column in zip(TEXTS, texts, strict=False)}
            said = by_number(labels, known) if listed else labels  # the alphabet is no order to number in
            return Rows({**named, LABEL: _targets(part, label, said, settled, known)}, part.source)

        training, evaluation = arrange(
            read,
            train="train",
            evaluate=["validation"],
            holdout=holdout or (0.0 if validation_file else SHARE),
            rows=rows,
            seed=seed,
            by_class=settled == "classification",
        )
        if not holdout:  # what is held out for want of a validation file is no part of an official split
            evaluation = {name: part.whole() for name, part in evaluation.items()}
            training = training.whole() if rows is None else training
        head = Head(settled, tuple(map(class_name, known)))
        if len(known) == 2:
            self.positive = head.labels[first]
            if metrics[0] == "f1" and positive is None:
                notes.append(
                    f"f1 is of the class {head.labels[1]:.60}; set positive to {head.labels[0]:.60} for the other."
                )
        notes.extend(_text_notes(training))
        notes.extend(_one_label_notes(evaluation, head))
        super().__init__("files", head, metrics, training, evaluation, notes=notes, positive=first)


def _text_notes(rows: Rows) -> list[str]:
    """Notes text columns that hold no words, as ids do."""
    wordless = [key for key in TEXTS if key in rows.columns and not any(map(_has_letter, rows.columns[key]))]
    return [
        f"the column of the {key.replace('_', ' ')} has no word in any row: is it that of the texts?"
        for key in wordless
    ]


def _one_label_notes(evaluation: dict[str, Rows], head: Head) -> list[str]:
    """Notes splits whose rows all have one label, so that their score says nothing."""
    alike = {name: part.columns[LABEL] for name, part in evaluation.items() if len(set(part.columns[LABEL])) == 1}
    return [
        f"all {len(labels)} {name} rows have the label {head.labels[labels[0]] if head.labels else labels[0]!s:.60}, "
        "so that a constant answer is right: score rows of other labels too."
        for name, labels in alike.items()
        if len(labels) > 1
    ]


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


def _text_columns(text: str | list[str], label: str) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not 1 <= len(texts) <= 2:
        raise InputError(f"text is the column of the text or the columns of two, got {plural(len(texts), 'column')}.")
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


def _read_other(path: Path, shape: Shape, training: Table) -> Table:
    table = read_table(path, shape)
    if table.columns == training.columns:
        raise InputError(f"train_file {training.where} and validation_file {path} hold the same rows. {_LEAK}")
    return table


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
