"""Infers the meaning of a user's labels: classes or numbers, and their order; asks where it could be either."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.tasks.labels import (
    Value,
    canonical,
    class_indices,
    class_name,
    is_number,
    may_be_numbers,
    to_numbers,
)
from trainflat.tasks.tables import Table

Kind = Literal["classification", "regression"]

FEW = 20  # up to 20 distinct integers are classes without asking: ratings and digits, not counts
_SHOWN = 10  # different labels in a message
_NO_LABELS = {"none", "null", "na", "n/a", "#n/a", "<na>", "nil", "?", "-", "--", "missing", "unlabeled", "unlabelled"}
_COMMAS = re.compile(r"[+-]?[0-9]+(,[0-9]+)+")
_SETTLE = "Set kind to classification or regression."


@dataclass(frozen=True)
class Meaning:
    """Holds the interpretation of a label column: classes in index order, or numbers.

    Attributes:
        classes: In index order; empty for regression.
        positive: Index of the positive class of "f1".
        listed: Whether the user listed the classes, so that rows may also number them.
    """

    kind: Kind
    classes: tuple[Value, ...]
    positive: int
    listed: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(class_name, self.classes))

    def targets(self, table: Table, label: str, values: Sequence[Value]) -> list[int] | list[float]:
        """Converts labels to class indices, or to numbers for regression.

        Raises:
            InputError: a label is not a class, or not a number.
        """
        if self.kind == "regression":
            return to_numbers(table, label, values)
        # The alphabetical order of classes that were not listed is nothing that a file would number by.
        return class_indices(table, label, _by_number(values, self.classes) if self.listed else values, self.classes)

    def notes(self, values: Sequence[Value], asked: Kind | None) -> list[str]:
        """Lists the assumptions about the training labels; ``asked`` is the kind that the user set, if any."""
        return [f"{note}." for note in (*self._kind_notes(values, asked), *self._class_notes(values))]

    def _kind_notes(self, values: Sequence[Value], asked: Kind | None) -> list[str]:
        shown = _some(values)
        if asked is None and self.kind == "regression" and len(set(values)) <= FEW:
            return [f"the labels ({shown}) are taken for numbers; set kind to classification if they are classes"]
        # Two classes stay without a note: 0 and 1 are hardly ever meant as numbers.
        if asked is None and not self.listed and len(self.classes) > 2 and may_be_numbers(values):
            return [f"the labels ({shown}) are taken for classes; set kind to regression if they are numbers"]
        return []

    def _class_notes(self, values: Sequence[Value]) -> list[str]:
        counts = Counter(map(class_name, values)) if self.classes else Counter()
        notes = []
        other = sorted(set(counts) - set(self.names))
        if self.listed and other and not set(counts) & set(map(str, range(len(self.names)))):
            notes.append(
                f"labels such as {other[0]!r:.60} are taken for the class of that name, capitals and spaces aside"
            )
        used = set(map(canonical, counts))
        unused = [name for name in self.names if canonical(name) not in used]
        if self.listed and unused and len(unused) < len(self.names):
            notes.append(f"no training row is of the class {unused[0]:.60}")
        single = [name for name, count in counts.items() if count == 1]
        if single and len(single) < len(counts):
            also = f", as have {plural(len(single) - 1, 'other')}" if len(single) > 1 else ""
            notes.append(f"the class {single[0]!r:.60} has a single row{also}: is it a class, or a header or a slip?")
        return notes


def interpret(
    table: Table,
    label: str,
    values: Sequence[Value],
    *,
    kind: Kind | None,
    classes: list[Value] | None,
    positive: Value | None,
) -> Meaning:
    """Interprets the labels of the training rows by the user's options, and infers what these leave open.

    Raises:
        InputError: the labels are ambiguous, all equal, or the options do not fit them.
    """
    if classes is not None:
        _check_listed(classes)
    kind = kind or ("classification" if classes else infer_kind(table, label, values))
    known = (classes or find_classes(table, label, values)) if kind == "classification" else []
    spread = known or to_numbers(table, label, values)
    if len(set(spread)) < 2:
        raise InputError(f"{table.where}: column {label!r} holds only {spread[0]!r:.60}. Add rows with other labels.")
    return Meaning(kind, tuple(known), _positive_index(positive, known), listed=classes is not None)


def infer_kind(table: Table, label: str, values: Sequence[Value]) -> Kind:
    """Infers whether the labels are classes or numbers.

    Raises:
        InputError: they may be either, or one of them may mean a missing label; names the options that settle it.
    """
    _ask_for_missing(table, label, values)
    if isinstance(values[0], float):
        # pandas writes integers as floats as soon as a column has a gap.
        if len(set(values)) > 1 and all(float(value).is_integer() for value in values):
            raise InputError(
                f"{table.where}: column {label!r:.60} holds whole numbers with a decimal point ({_some(values)}), "
                f"which may be classes or numbers. {_SETTLE}"
            )
        return "regression"
    _ask_for_odd(table, label, values)
    different = len(set(values))
    if different > FEW and may_be_numbers(values):
        what = f"labels like {values[0]!r:.60}" if isinstance(values[0], str) else "integers"
        raise InputError(
            f"{table.where}: column {label!r:.60} has {different} different {what}, which may be classes or numbers. "
            f"{_SETTLE}"
        )
    return "classification"


def _ask_for_odd(table: Table, label: str, values: Sequence[Value]) -> None:
    """Refuses a few words among numbers, and decimal commas: either would silently make a regression into classes."""
    if not isinstance(values[0], str):
        return
    odd = [row for row, value in enumerate(values) if not is_number(value)]
    if 0 < len(odd) < len(values) / 2:
        problem = (
            f"the label {values[odd[0]]!r:.60} is not a number, as most are. Correct it, leave such rows out with the "
            "option `missing`, or set kind to classification."
        )
        raise table.fault(odd[0], label, problem)
    # Decimal commas are usual in Excel's CSV of many countries; as strings each would be a class.
    if all(_COMMAS.fullmatch(str(value)) for value in values):
        raise table.fault(
            0,
            label,
            f"{values[0]!r:.60} may be a number with a decimal comma. Write a point, or set kind to classification.",
        )


def _ask_for_missing(table: Table, label: str, values: Sequence[Value]) -> None:
    """Refuses -1 beside 0, 1, ... (as in SNLI and GLUE's test sets) and words such as "n/a": likely missing labels."""
    counts = Counter(values)
    suspects: list[Value]
    if isinstance(values[0], str):
        suspects = [value for value in counts if str(value).casefold() in _NO_LABELS]
    else:
        below: list[Value] = [value for value in counts if not isinstance(value, bool | str) and value < 0]
        suspects = [*below] if len(below) == 1 and 0 in counts else []
    if suspects and len(counts) > 2:  # of two labels -1 or "none" is probably the negative class
        shown = class_name(suspects[0])
        raise InputError(
            f"{table.where}: {counts[suspects[0]]} of the {len(values)} rows have the label {shown!r:.60} beside "
            f"{_some([value for value in counts if value not in suspects])}. If it stands for a missing label, leave "
            f"them out with `missing: {shown!r:.60}`; if not, set kind to classification or regression."
        )


def _some(values: Sequence[Value]) -> str:
    """Formats the smallest distinct values."""
    different = sorted(set(values))
    more = ", ..." if len(different) > _SHOWN else ""
    return ", ".join(f"{value!s:.40}" for value in different[:_SHOWN]) + more


def find_classes(table: Table, label: str, values: Sequence[Value]) -> list[Value]:
    """Returns the distinct labels, numbers by size and strings by code point.

    Raises:
        InputError: every row has another label, or two labels differ only in capitals or spaces.
    """
    classes: list[Value] = sorted(set(values))  # comparable, since read_labels gives one type
    if len(classes) == len(values) and len(values) > 2:
        raise InputError(
            f"{table.where}: column {label!r:.60} has another class in each of its {plural(len(values), 'row')}. "
            "Name the column of the labels."
        )
    first: dict[str, str] = {}
    for name in map(class_name, classes):
        other = first.setdefault(canonical(name), name)
        if other != name:
            raise InputError(
                f"{table.where}: column {label!r:.60} has the classes {other!r:.60} and {name!r:.60}, which differ "
                "only in capitals or spaces. List the classes with the option `classes`: with one of the two they "
                "are one class, with both two."
            )
    return classes


def _check_listed(classes: Sequence[Value]) -> None:
    names = list(map(class_name, classes))
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"classes lists at least two classes, each once, got {', '.join(names)[:100] or 'none'}.")


def _by_number(values: Sequence[Value], classes: Sequence[Value]) -> list[Value]:
    """Replaces indices from 0 by the classes; unless a class is named by a number, which a label then means."""
    numbered = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < len(classes) for v in values)
    if numbered and not any(is_number(class_name(one)) for one in classes):
        return [classes[int(value)] for value in values]
    return list(values)


def _positive_index(positive: Value | None, classes: Sequence[Value]) -> int:
    """Returns the index of the positive class of "f1": the named one, else the second, as scikit-learn takes it."""
    if positive is None:
        return 1
    names = [class_name(value) for value in classes]
    if len(names) != 2:
        raise InputError(
            f"positive names the positive class of two, and there are {len(names) or 'no'} classes. Leave it out."
        )
    wanted = class_name(positive)
    for spelled in (str, canonical):
        found = [i for i, name in enumerate(names) if spelled(name) == spelled(wanted)]
        if len(found) == 1:
            return found[0]
    raise UnknownName("class", wanted, names)
