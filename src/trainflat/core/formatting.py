"""Formats values for messages: counts with nouns, durations, expected types."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

# Expected values by the beginning of pydantic's error type; the error's context fills in the braces. pydantic's own
# texts ("Input should be a valid integer, unable to parse...") speak of Python, and a recipe's author need not know it.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string_too_short": "text of {min_length} or more characters",
    "string_too_long": "text of {max_length} or fewer characters",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "iterable": "a list",
    "sequence": "a list",
    "too_short": "a list of {min_length} or more values",
    "too_long": "a list of {max_length} or fewer values",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "literal": "{expected}",
    "enum": "{expected}",
    "none": "none",
    "greater_than_equal": "a number of at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
    "path": "a path",
    "missing": "a value",
}
_CLASSES = {"Sequence": "a list", "Mapping": "a mapping"}


def plural(count: float, noun: str, nouns: str | None = None, form: str = "") -> str:
    """Formats a count with its noun; ``form`` is as in a format string.

    Example:
        >>> plural(1, "run"), plural(2, "run"), plural(0.5, "epoch"), plural(2, "matrix", "matrices")
        ('1 run', '2 runs', '0.5 epochs', '2 matrices')
    """
    number = format(count, form or ("g" if isinstance(count, float) else "d"))
    return f"{number} {noun}" if count == 1 else f"{number} {nouns or noun + 's'}"


def duration(seconds: float) -> str:
    """Formats an estimated duration, rounded.

    Example:
        >>> duration(0.2), duration(40), duration(95), duration(600), duration(9000)
        ('1 s', '40 s', '2 min', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def wanted(errors: Sequence[Mapping[str, Any]]) -> str:
    """Describes the expected type of one value from pydantic's errors, which a union gives once per branch.

    Example:
        >>> wanted([{"type": "literal_error", "ctx": {"expected": "'epoch'"}}, {"type": "int_parsing"}])
        "'epoch' or a whole number is expected"
    """
    # ValueErrors of our own validators say more than any type does.
    own = [str(error["msg"]).removeprefix("Value error, ") for error in errors if error["type"] == "value_error"]
    if own:
        return " or ".join(own)
    return " or ".join(dict.fromkeys(map(_expected, errors))) + " is expected"


def _expected(error: Mapping[str, Any]) -> str:
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "is_instance_of":
        return _CLASSES.get(context["class"], f"a {context['class']}")
    fitting = [begin for begin in _EXPECTED if kind.startswith(begin)]
    if not fitting:
        return str(error["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    return _EXPECTED[max(fitting, key=len)].format(**context)  # string_too_short also begins with string


def shown(value: Any) -> str:
    """Formats a value as YAML, shortened, for a message.

    Example:
        >>> shown(None), shown(True), shown("a"), shown([1, None])
        ('nothing', 'true', "'a'", '[1, None]')
    """
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else shorten(repr(value), 100, placeholder=" ...")
