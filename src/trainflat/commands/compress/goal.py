"""Reads how much smaller or faster a model shall become."""

from collections.abc import Callable
from typing import Any

from trainflat.core.errors import InputError
from trainflat.records.compression import Goal

_UNITS: dict[
    str, tuple[str, str, Callable[[float], bool]]
] = {  # kind: what it is, what it is written as, whether a value fits
    "speedup": ("times as fast as the model on this machine, above 1", "3", lambda x: x > 1),
    "latency": ("milliseconds of one forward pass, above 0", "5ms", lambda x: x > 0),
    "size": ("megabytes (10^6 bytes) of the weights, above 0", "20MB", lambda x: x > 0),
    "sparsity": ("the share of the layers' parameters to remove, in (0, 1)", "0.6", lambda x: 0 < x < 1),
    "max-drop": ("points that the score may lose, at least 0", "1.0", lambda x: x >= 0),
}
_SUFFIXES = {"latency": {"ms": 1.0, "us": 1e-3, "s": 1e3}, "size": {"MB": 1.0, "kB": 1e-3, "GB": 1e3}}


def read_goal(**given: Any) -> Goal:
    """Reads the one goal that was given, as a number or with its unit.

    Raises:
        InputError: there is none, there are several, or the value is out of range.

    Example:
        >>> read_goal(speedup=None, latency="5ms")
        Goal(kind='latency', value=5.0)
    """
    named = {key.replace("_", "-"): value for key, value in given.items() if value is not None}
    if len(named) != 1:
        options = ", ".join(f"--{kind} {example}" for kind, (_, example, _) in _UNITS.items())
        got = "none was" if not named else f"{' and '.join(f'--{kind}' for kind in named)} were"
        raise InputError(f"a model is compressed towards one goal, and {got} given. Choose one of {options}.")
    [(kind, value)] = named.items()
    number, (words, example, fits) = _number(kind, value), _UNITS[kind]
    if number is None or not fits(number):
        raise InputError(f"--{kind} is {words}, got {value!r}. Write it as {example}.")
    return Goal(kind=kind, value=number)


def _number(kind: str, value: Any) -> float | None:
    text = str(value).strip()
    factor = 1.0
    for suffix, unit in sorted(_SUFFIXES.get(kind, {}).items(), key=lambda item: -len(item[0])):
        if text.lower().endswith(suffix.lower()):
            text, factor = text[: -len(suffix)], unit
            break
    try:
        number = factor * float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None  # NaN compares false
