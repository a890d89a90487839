"""Infers the meaning of a user's labels: classes or numbers, and their order; asks where it could be either."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.tasks.labels import Value, canonical, class_name, is_number, may_be_numbers
from trainflat.tasks.tables import Table

Kind = Literal["classification", "regression"]

FEW = 20  # different numbers that are taken for classes without asking
_SHOWN = 10  # different labels in a message
_NO_LABELS = {"none", "null", "na", "n/a", "#n/a", "<na>", "nil", "?", "-", "--", "missing", "unlabeled", "unlabelled"}
_COMMAS = re.compile(r"[+-]?[0-9]+(,[0-9]+)+")
_SETTLE = "Set kind to classification or regression."


def infer_kind(table: Table, label: str, values: Sequence[Value]) -> Kind:
    """Infers whether the labels are classes or numbers, where the user does not say.

    Raises:
        InputError: they may be either, or one of them may stand for a missing label; names the options that settle it.
    """
    _ask_for_missing(table, label, values)
    if isinstance(values[0], float):
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
    """Refuses a few words among numbers, and decimal commas, which would turn numbers into words."""
    if not isinstance(values[0], str):
        return
    odd = [row for row, value in enumerate(values) if not is_number(value)]
    if 0 < len(odd) < len(values) / 2:
        problem = (
            f"the label {values[odd[0]]!r:.60} is not a number, as most are. Correct it, leave such rows out with the "
            "option `missing`, or set kind to classification."
        )
        raise table.fault(odd[0], label, problem)
    if all(_COMMAS.fullmatch(str(value)) for value in values):
        raise table.fault(
            0,
            label,
            f"{values[0]!r:.60} may be a number with a decimal comma. Write a point, or set kind to classification.",
        )


def _ask_for_missing(table: Table, label: str, values: Sequence[Value]) -> None:
    """Refuses -1 beside 0, 1, ... and words such as "n/a", which may stand for no label."""
    counts = Counter(values)
    suspects: list[Value]
    if isinstance(values[0], str):
        suspects = [value for value in counts if str(value).casefold() in _NO_LABELS]
    else:
        below: list[Value] = [value for value in counts if not isinstance(value, bool | str) and value < 0]
        suspects = [*below] if len(below) == 1 and 0 in counts else []
    if suspects and len(counts) > 2:
        shown = class_name(suspects[0])
        raise InputError(
            f"{table.where}: {counts[suspects[0]]} of the {len(values)} rows have the label {shown!r:.60} beside "
            f"{_some([value for value in counts if value not in suspects])}. If it stands for a missing label, leave "
            f"them out with `missing: {shown!r:.60}`; if not, set kind to classification or regression."
        )


def _some(values: Sequence[Value]) -> str:
    """Returns some of the different values, the smallest first."""
    different = sorted(set(values))
    more = ", ..." if len(different) > _SHOWN else ""
    return ", ".join(f"{value!s:.40}" for value in different[:_SHOWN]) + more


def find_classes(table: Table, label: str, values: Sequence[Value]) -> list[Value]:
    """Returns the different labels in order, numbers by size and strings by code point.

    Raises:
        InputError: there is one per row, or two differ only in capitals or spaces.
    """
    classes: list[Value] = sorted(set(values))  # all of one kind
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


def check_classes(classes: Sequence[Value]) -> list[Value]:
    """Checks the classes that a user lists: at least two, each once.

    Raises:
        InputError: fewer, or one is there twice.
    """
    names = [class_name(value) for value in classes]
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"classes lists at least two classes, each once, got {', '.join(names)[:100] or 'none'}.")
    return list(classes)


def by_number(values: Sequence[Value], classes: Sequence[Value]) -> list[Value]:
    """Replaces numbers by the classes they index (0 is the first listed), unless a class is called by a number."""
    numbered = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < len(classes) for v in values)
    if numbered and not any(is_number(class_name(one)) for one in classes):
        return [classes[int(value)] for value in values]
    return list(values)


def find_positive(positive: Value | None, classes: Sequence[Value]) -> int:
    """Returns the index of the positive class of "f1": the one named, else the second.

    Raises:
        InputError: there is no such class, or there are not two.
    """
    if positive is None:
        return 1
    names = [class_name(value) for value in classes]
    if len(names) != 2:
        raise InputError(
            f"positive names the class that f1 is of, and there are {len(names) or 'no'} classes. Leave it out."
        )
    wanted = class_name(positive)
    for spelled in (str, canonical):
        found = [i for i, name in enumerate(names) if spelled(name) == spelled(wanted)]
        if len(found) == 1:
            return found[0]
    raise UnknownName("class", wanted, names)


def meaning_notes(values: Sequence[Value], classes: Sequence[Value], *, kind: Kind | None, order: bool) -> list[str]:
    """Notes assumptions about the labels: ``kind`` is the user's word, ``order`` whether classes were listed."""
    different = {class_name(value) for value in values}
    notes = []
    if kind is None and not classes and len(different) <= FEW:
        notes.append(
            f"the labels ({_some(values)}) are taken for numbers; set kind to classification if they are classes"
        )
    if kind is None and not order and len(classes) > 2 and may_be_numbers(values):
        notes.append(f"the labels ({_some(values)}) are taken for classes; set kind to regression if they are numbers")
    names = [class_name(value) for value in classes]
    other = sorted(different - set(names))
    if order and other and not different & set(map(str, range(len(names)))):
        notes.append(f"labels such as {other[0]!r:.60} are taken for the class of that name, capitals and spaces aside")
    unused = [name for name in names if canonical(name) not in {canonical(one) for one in different}]
    if order and unused and len(unused) < len(names):
        notes.append(f"no training row is of the class {unused[0]:.60}")
    counts = Counter(map(class_name, values)) if classes else Counter()
    single = [name for name, count in counts.items() if count == 1]
    if single and len(single) < len(counts):
        also = f", as have {plural(len(single) - 1, 'other')}" if len(single) > 1 else ""
        notes.append(f"the class {single[0]!r:.60} has a single row{also}: is it a class, or a header or a slip?")
    return [f"{note}." for note in notes]
