"""Reads labels as numbers or as indices of classes."""

import math
import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from trainflat.tasks.tables import Table, without_rows

Value = str | int | float | bool

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_PADDED = re.compile(r"[+-]?0[0-9]+(\.[0-9]*)?")
_BARE = re.compile(r"[+-]?[0-9]+([eE][0-9]+)?")  # neither a decimal point nor the signed exponent of a printed number
_HUGE = re.compile(r"[+-]?[0-9]{301,}")  # float() would give infinity, and int() refuses more than 4300 digits
# No digit can match two of its parts, so that it runs in linear time on any string.
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST = 1000  # characters; a longer label is probably the text column


def read_labels(table: Table, column: str) -> list[Value]:
    """Reads the labels of a table: all strings, all booleans, all integers or all floats.

    CSV has strings only, so a column of numerals becomes numbers, but a column of codes stays strings, since numbers
    would lose a part of them. These make it one: a leading zero (``007``, ``01.11``); and, unless others have a decimal
    point, a plus sign (``+1``) or a bare exponent (``3E2``).

    Raises:
        InputError: a label is missing, NaN, infinite, of more than 300 digits, or of another type than the others.
    """
    values = table.column(column)
    for row, value in enumerate(values):
        problem = _problem(value)
        if problem:
            raise table.fault(
                row, column, f"{problem}. Write a label, or leave such rows out with the option `missing`."
            )
    kinds = [_kind(value) for value in values]
    odd = next((row for row, kind in enumerate(kinds) if kind is not kinds[0]), None)
    if odd is not None:
        problem = (
            f"the label {values[odd]!r:.60} is not of the type of the first one, {values[0]!r:.60}. Write all alike."
        )
        raise table.fault(odd, column, problem)
    if kinds[0] is str:
        return _read_strings([value.strip() for value in values])
    return [float(value) for value in values] if any(isinstance(value, float) for value in values) else values


def _read_strings(values: list[str]) -> list[Value]:
    if all(map(_INTEGER.fullmatch, values)):
        return [int(value) for value in values]
    codes = any(map(_PADDED.fullmatch, values)) or all(map(_BARE.fullmatch, values))
    # One leading zero makes the column one of codes: as numbers, 007 and 7 would be one class.
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
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value!r:.60} is no label but a text of {len(value):,} letters"
    return None if isinstance(value, str | int | float) else f"{value!r:.60} is no label"


def _is_huge(value: Any) -> bool:
    """Returns whether a value is an integer, or the numeral of one, of more than 300 digits."""
    if isinstance(value, int):
        return abs(value) >= 10**300
    return isinstance(value, str) and len(value) > 300 and _HUGE.fullmatch(value.strip()) is not None


def _kind(value: Value) -> type:
    """Returns bool, str, or float for any number, because 1 and 1.0 may mix in JSON."""
    return type(value) if isinstance(value, bool | str) else float


def leave_out(table: Table, column: str, missing: Sequence[Value]) -> Table:
    """Drops rows whose label is one of ``missing``; ``""`` includes null and NaN."""
    if not missing:
        return table
    gone = {_key(value) for value in missing}
    rows = [row for row, value in enumerate(table.column(column)) if _key(value) not in gone]
    return without_rows(table, rows, f"{len(table) - len(rows)} of {len(table)} rows have no label and are left out")


def _key(value: Any) -> Any:
    """Returns a key that is equal for -1, "-1" and -1.0, and for null, NaN and ""."""
    text = value.strip() if isinstance(value, str) else value
    if text is None or str(text).lower() in ("", "nan"):
        return ""
    if _is_huge(text) or not isinstance(text, str | int | float):
        return repr(text)
    return float(text) if is_number(text) else text


def class_indices(table: Table, column: str, values: Sequence[Value], classes: Sequence[Value]) -> list[int]:
    """Finds the index of every label among the classes, ignoring case and spaces unless classes differ in these only.

    Raises:
        InputError: a label is not among the classes.
    """
    # By name, because one file may have the integer 1 where another one has "1" or 1.0.
    names = [class_name(value) for value in classes]
    index = {name: i for i, name in enumerate(names)}
    alike = {canonical(name): i for i, name in enumerate(names)}
    if len(alike) < len(names):
        alike = {}  # two classes differ only in capitals, so these count
    found = []
    for row, value in enumerate(values):
        name = class_name(value)
        if name not in index:
            place = alike.get(canonical(name))
            if place is None:
                raise table.fault(row, column, _unknown(name, names, classes))
            index[name] = place  # each spelling is normalized once
        found.append(index[name])
    return found


def _unknown(name: str, names: Sequence[str], classes: Sequence[Value]) -> str:
    near = get_close_matches(name[:60], [one for one in names if len(one) <= 60], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(f"{one:.60}" for one in names[:20]) + (", ..." if len(names) > 20 else "")
    booleans = any(isinstance(value, bool) for value in classes)
    quotes = " YAML reads yes, no, on and off as truth values: put quotes around them." if booleans else ""
    numbered = is_number(name) and not any(map(is_number, names))
    order = " Rows may number them from 0 where the option `classes` lists them in that order." if numbered else ""
    return f"among the classes is no label {name!r:.60}.{hint} Known: {known}.{quotes}{order}"


def canonical(name: str) -> str:
    """Normalizes a class name: case, kind of space, and the ``LABEL_`` that transformers puts before numbers.

    Example:
        >>> canonical(" Not  Entailment"), canonical("not_entailment"), canonical("LABEL_1"), canonical("-1")
        ('not_entailment', 'not_entailment', '1', '-1')
    """
    # Only between letters: the sign of "-1" stays.
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", "_", unicodedata.normalize("NFKC", name).strip().casefold())
    return re.sub(r"^label_(?=[0-9]+$)", "", text)


def match_names(wanted: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """Finds the index in ``known`` of every class in ``wanted``, by exact or else normalized name; None if they differ.

    If one side has numbers only (``LABEL_0``, ``LABEL_1``), as models without names have, the order is taken as equal.

    Example:
        >>> match_names(["joy", "anger"], ["Anger", "Joy"]), match_names(["joy", "anger"], ["LABEL_0", "LABEL_1"])
        ([1, 0], [0, 1])
        >>> match_names(["joy", "anger"], ["joy", "fear"]) is None
        True
    """
    if len(wanted) != len(known):  # before a million names are read, as a hostile config may have
        return None
    for spelled in (str, canonical):
        index = {spelled(name): i for i, name in enumerate(known)}
        if len(index) == len(known) and {spelled(name) for name in wanted} == set(index):
            return [index[spelled(name)] for name in wanted]
    return list(range(len(known))) if is_nameless(wanted) or is_nameless(known) else None


def is_nameless(names: Sequence[str]) -> bool:
    """Returns whether class names are mere indices: 0, 1, ... or LABEL_0, LABEL_1, ..."""
    return [canonical(name) for name in names] == [str(i) for i in range(len(names))]


def class_name(value: Value) -> str:
    """Returns the name of a class; 1.0 is named 1, as the integer of another file."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_number(value: Value) -> bool:
    """Returns whether a value is a finite number or the numeral of one; booleans are none."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))
    return not isinstance(value, bool)


def may_be_numbers(values: Sequence[Value]) -> bool:
    """Returns whether class labels could be meant as numbers: all are numerals without leading zeros, or integers."""
    if isinstance(values[0], str):
        return all(map(is_number, values)) and not any(map(_PADDED.fullmatch, map(str, values)))
    return isinstance(values[0], int) and not isinstance(values[0], bool)


def to_numbers(table: Table, column: str, values: Sequence[Value]) -> list[float]:
    """Converts labels to numbers for regression. Raises InputError if a label is not a number."""
    for row, value in enumerate(values):
        if not is_number(value):
            raise table.fault(row, column, f"the label {value!r:.60} is not a number. Correct it or drop the row.")
    return [float(value) for value in values]
