"""Labels, as numbers or as indices of classes."""

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from trainflat.tasks.tables import Table

Value = str | int | float | bool

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_PADDED = re.compile(r"[+-]?0[0-9]+(\.[0-9]*)?")
_BARE = re.compile(r"[+-]?[0-9]+([eE][0-9]+)?")  # neither a decimal point nor the signed exponent of a printed number
_HUGE = re.compile(r"[+-]?[0-9]{301,}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_labels(table: Table, column: str) -> list[Value]:
    """The labels of a table: all strings, all booleans, all integers or all floats.

    Strings that are all numbers become numbers, since CSV knows no others; but not codes, of which a number would lose
    a part. Where a column has one of these, all of it stays strings: a leading zero (``007``, ``01.11``); and, unless
    others have a decimal point, a plus sign (``+1``) or a bare exponent (``3E2``).

    Raises:
        InputError: a label is missing, NaN, infinite, of more than 300 digits, or of another kind than the others.
    """
    values = table.column(column)
    for row, value in enumerate(values):
        problem = _problem(value)
        if problem:
            raise table.fault(row, column, f"{problem}. Write a label or drop the row.")
    kinds = [_kind(value) for value in values]
    odd = next((row for row, kind in enumerate(kinds) if kind is not kinds[0]), None)
    if odd is not None:
        problem = (
            f"the label {values[odd]!r:.60} is not of the kind of the first one, {values[0]!r:.60}. Write all alike."
        )
        raise table.fault(odd, column, problem)
    if kinds[0] is str:
        return _read_strings([value.strip() for value in values])
    return [float(value) for value in values] if any(isinstance(value, float) for value in values) else values


def _read_strings(values: list[str]) -> list[Value]:
    if all(map(_INTEGER.fullmatch, values)):
        return [int(value) for value in values]
    codes = any(map(_PADDED.fullmatch, values)) or all(map(_BARE.fullmatch, values))
    return list(values) if codes or not all(map(is_number, values)) else [float(value) for value in values]


def _problem(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "the label is missing"
    if isinstance(value, float) and not math.isfinite(value):
        return f"the label is {value}"
    if isinstance(value, str) and value.strip().lower() == "nan":
        return "the label is NaN"
    if _is_huge(value):
        return "the label is a whole number of more than 300 digits"
    return None if isinstance(value, str | int | float) else f"{value!r:.60} is no label"


def _is_huge(value: Any) -> bool:
    """Whether float would overflow, or int refuse to read it."""
    if isinstance(value, int):
        return abs(value) >= 10**300
    return isinstance(value, str) and len(value) > 300 and _HUGE.fullmatch(value.strip()) is not None


def _kind(value: Value) -> type:
    """bool, str, or float for every number."""
    return type(value) if isinstance(value, bool | str) else float


def class_indices(table: Table, column: str, values: Sequence[Value], classes: Sequence[Value]) -> list[int]:
    """Index of every label among the classes.

    Raises:
        InputError: a label is not among them.
    """
    # By name, because one file may have the integer 1 where another has "1" or 1.0.
    names = [class_name(value) for value in classes]
    index = {name: i for i, name in enumerate(names)}
    for row, value in enumerate(values):
        if class_name(value) not in index:
            near = get_close_matches(class_name(value), names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise table.fault(row, column, f"the training rows have no label {str(value)!r:.60}.{hint} Known: {known}.")
    return [index[class_name(value)] for value in values]


def class_name(value: Value) -> str:
    """What a class is called; 1.0 is called 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_number(value: Value) -> bool:
    """Whether it is a finite number or a string that reads as one; truth values are none."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))
    return not isinstance(value, bool)


def may_be_numbers(values: Sequence[Value]) -> bool:
    """Whether labels that look like classes may be meant as numbers: all read as such, and none has leading zeros."""
    if isinstance(values[0], str):
        return all(map(is_number, values)) and not any(map(_PADDED.fullmatch, map(str, values)))
    return isinstance(values[0], int) and not isinstance(values[0], bool)


def to_numbers(table: Table, column: str, values: Sequence[Value]) -> list[float]:
    """Labels for regression.

    Raises:
        InputError: a label is not a number.
    """
    for row, value in enumerate(values):
        if not is_number(value):
            raise table.fault(row, column, f"the label {value!r:.60} is not a number. Correct it or drop the row.")
    return [float(value) for value in values]
