"""Reads a user's own rows: one or two texts and a label."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.tasks.base import Head
from trainflat.tasks.labels import Value, leave_out, read_labels
from trainflat.tasks.meaning import Kind, Meaning, interpret
from trainflat.tasks.metrics import CLASSIFICATION, METRICS, REGRESSION
from trainflat.tasks.opening import Shape
from trainflat.tasks.rows import Rows
from trainflat.tasks.splits import arrange
from trainflat.tasks.tables import Table, read_table, without_blank_end
from trainflat.tasks.text import LABEL, TEXTS, TextTask

SHARE = 0.1  # of the training rows, held out where no validation file is given
_LEAK = "Scores on training rows are too high: name other rows, or leave validation_file out."


class Files(TextTask):
    """A user's own files (CSV, TSV, JSON lines, JSON, parquet): classification or regression of one or two texts.

    Args:
        data: Folder of relative paths; by default the current one.
        seed: Seed of ``holdout`` and ``rows``.
        train_file: File of the training rows.
        validation_file: File of other rows to score; without it a tenth of the training rows is held out.
        text: Column of the text, or the columns of a pair.
        label: Column of the label, which is no text column.
        kind: By default regression for labels with fractions, else classification: words, truth values, integers (up to
            20 distinct ones), and codes such as ``007``, ``01.11``, ``+1`` or ``3E2`` (see
            :func:`~trainflat.tasks.labels.read_labels`). Must be set where both are possible (``0.0``, ``1.0``).
        metric: Main score: accuracy, f1 (of the class ``positive``, or macro) or matthews; pearson or spearman.
        holdout: Share of the training rows to score instead of the validation file, for tuning.
        rows: Number of training rows to draw; all by default.
        classes: Class names in index order, matched regardless of capitals and spaces; rows may also number them from
            0. By default the labels of the training rows, numbers by size and words alphabetically.
        positive: Positive class of f1, for two classes; by default the second.
        missing: Label, or list of labels, that marks rows without a label, such as -1; these are dropped. "" also means
            null and NaN.
        columns: Column names of delimited files without a header; columns named "" are not read.
        separator: Field separator of delimited files, such as ";" or tab; detected by default.
        encoding: Text encoding; by default the byte order mark's, else UTF-8.
        large: Whether to read files of over 5 million rows or a GB, and those that unpack to 200 times their size.
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
        _check_options(kind, classes, validation_file)
        unlabelled = missing if isinstance(missing, list) else [] if missing is None else [missing]
        shape = Shape(None if columns is None else tuple(columns), separator, encoding, bool(large))
        source = _Source(data, _text_columns(text, label), label, unlabelled, shape)
        tables = source.tables(train_file, validation_file, tuning=bool(holdout))
        values = read_labels(tables["train"], label)
        meaning = interpret(tables["train"], label, values, kind=kind, classes=classes, positive=positive)
        training, evaluation = source.splits(tables, meaning, holdout=holdout, rows=rows, seed=seed)
        head, metrics = Head(meaning.kind, meaning.names), _metrics(meaning.kind, metric)
        self.positive = head.labels[meaning.positive] if len(head.labels) == 2 else ""
        of_data, *of_validation = (table.notes for table in tables.values())
        notes = [*of_data, *meaning.notes(values, kind), *(note for notes in of_validation for note in notes)]
        if self.positive and metrics[0] == "f1" and positive is None:
            notes.append(f"f1 is of the class {self.positive:.60}; set positive to {head.labels[0]:.60} for the other.")
        notes += [*_text_notes(training), *_one_label_notes(evaluation, head)]
        super().__init__("files", head, metrics, training, evaluation, notes=notes, positive=meaning.positive)


@dataclass(frozen=True)
class _Source:
    """Reads the user's files by the options that all of them share."""

    folder: Path | None
    texts: list[str]
    label: str
    missing: list[Value]
    shape: Shape

    def path(self, name: str) -> Path:
        try:
            return (self.folder or Path()) / Path(name).expanduser()
        except RuntimeError as error:
            raise InputError(f"{name:.200} cannot be read: there is no such user. Write the whole path.") from error

    def tables(self, train: str, validation: str | None, *, tuning: bool) -> dict[str, Table]:
        """Reads the training file and, if there is one, the validation file; not for tuning, which must not see it."""
        if validation is not None:
            _check_apart(self.path(train), self.path(validation))
        names = {"train": train} if validation is None or tuning else {"train": train, "validation": validation}
        found = {
            split: leave_out(without_blank_end(read_table(self.path(name), self.shape)), self.label, self.missing)
            for split, name in names.items()
        }
        files = list(found.values())
        if len(files) > 1 and files[0].columns == files[1].columns:
            raise InputError(
                f"train_file {files[0].where} and validation_file {files[1].where} hold the same rows. {_LEAK}"
            )
        return found

    def splits(
        self, tables: Mapping[str, Table], meaning: Meaning, *, holdout: float, rows: int | None, seed: int
    ) -> tuple[Rows, dict[str, Rows]]:
        """Returns the rows to train on and those to score, of which some are held out where there is no such file."""
        training, evaluation = arrange(
            lambda split: self.rows(tables[split], meaning),
            train="train",
            evaluate=["validation"],
            holdout=holdout or (0.0 if "validation" in tables else SHARE),
            rows=rows,
            seed=seed,
            by_class=meaning.kind == "classification",
        )
        if holdout:
            return training, evaluation
        # "Partial" warns that scores do not compare with published ones; rows held out for want of a validation file
        # are no part of an official split.
        whole = {name: replace(part, partial=False) for name, part in evaluation.items()}
        return replace(training, partial=rows is not None and training.partial), whole

    def rows(self, table: Table, meaning: Meaning) -> Rows:
        columns = {key: table.texts(column) for key, column in zip(TEXTS, self.texts, strict=False)}
        targets = meaning.targets(table, self.label, read_labels(table, self.label))
        return Rows({**columns, LABEL: targets}, table.source)


def _text_notes(rows: Rows) -> list[str]:
    """Notes text columns without a single letter, such as a column of ids named by mistake."""
    named = [key for key in TEXTS if key in rows.columns]
    wordless = [key for key in named if not any(any(map(str.isalpha, text)) for text in rows.columns[key])]
    return [
        f"the column of the {key.replace('_', ' ')} has no word in any row: is it the text column?" for key in wordless
    ]


def _one_label_notes(evaluation: dict[str, Rows], head: Head) -> list[str]:
    """Notes splits whose rows all have one label: a constant prediction then has the best score."""
    alike = {name: part.columns[LABEL] for name, part in evaluation.items() if len(set(part.columns[LABEL])) == 1}
    return [
        f"all {len(labels)} {name} rows have the label {head.labels[labels[0]] if head.labels else labels[0]!s:.60}, "
        "so that a constant answer is right: score rows of other labels too."
        for name, labels in alike.items()
        if len(labels) > 1
    ]


def _check_options(kind: Kind | None, classes: list[Value] | None, validation_file: str | None) -> None:
    if kind not in (None, "classification", "regression"):
        raise UnknownName("kind of task", kind, ("classification", "regression"))
    if classes is not None and kind == "regression":
        raise InputError("classes are for classification, and kind is regression. Leave one of the two out.")
    if validation_file == "":
        raise InputError("validation_file is '', which names no file. Leave it out to hold out training rows.")


def _text_columns(text: str | list[str], label: str) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not 1 <= len(texts) <= 2:
        raise InputError(f"text is the column of the text or the columns of two, got {plural(len(texts), 'column')}.")
    if label in texts:
        raise InputError(f"text and label are both the column {label!r}. Name another: a text must not be its answer.")
    if len(set(texts)) < len(texts):
        raise InputError(f"text names the column {texts[0]!r} twice. Name it once, or two columns.")
    return texts


def _check_apart(training: Path, validation: Path) -> None:
    try:
        same = training.samefile(validation)
    except (OSError, ValueError):
        return  # a file is missing; reading it raises the clearer error
    if same:
        raise InputError(f"train_file {training} and validation_file {validation} are one file. {_LEAK}")


def _metrics(kind: Kind, metric: str | None) -> tuple[str, ...]:
    fitting = CLASSIFICATION if kind == "classification" else REGRESSION
    if metric is None:
        return tuple(fitting)
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    if metric not in fitting:
        raise InputError(f"the metric {metric} does not fit {kind}. Use one of {', '.join(fitting)}.")
    return (metric, *(name for name in fitting if name != metric))
