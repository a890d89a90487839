"""Validates the values of options that constructors take, whoever calls them: a recipe or a user's own loop."""

import sys
from collections.abc import Callable
from typing import Any

from trainflat.core.errors import InputError


def number(name: str, value: Any, words: str, fits: Callable[[float], bool]) -> float:
    """Validates a finite number against a range.

    Raises:
        InputError: ``{name} is {words}, got {value}.``
    """
    # True is an int in Python, and a recipe that says `rho: yes` means no radius of 1. NaN compares false with
    # everything; math.isfinite would overflow on an integer such as 10**400.
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not abs(value) <= sys.float_info.max or not fits(value):
        raise InputError(f"{name} is {words}, got {value!r}.")
    return float(value)


def whole(name: str, value: Any, least: int = 1, unit: str = "") -> int:
    """Validates a whole number with a lower bound; 5.0 passes, because a recipe's 5e0 is read as a float.

    Raises:
        InputError: names the option and the value.
    """
    words = f"a whole number {unit and f'of {unit} '}>= {least}"
    return int(number(name, value, words, lambda x: x == int(x) and x >= least))


def boolean(name: str, value: Any) -> bool:
    """Validates True or False; 0, 1 and texts do not pass, since any non-empty text would count as True.

    Raises:
        InputError: names the option and the value.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} is true or false, got {value!r}.")
    return value
