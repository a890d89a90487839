"""Validates the values of numeric options."""

import math
from collections.abc import Callable
from typing import Any

from trainflat.core.errors import InputError


def number(name: str, value: Any, words: str, fits: Callable[[float], bool]) -> float:
    """Validates a number against a range; rejects booleans.

    Raises:
        InputError: says that ``name`` is ``words``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        raise InputError(f"{name} is {words}, got {value!r}.")
    return float(value)


def radius(rho: Any) -> float:
    """Validates rho; rejects booleans.

    Raises:
        InputError: says what ``rho`` is.
    """
    return number("rho", rho, "the radius of the displacement, a number >= 0", lambda x: x >= 0)


def whole(name: str, value: Any, least: int = 1) -> int:
    """Validates a whole number with a lower bound; accepts 5.0, which words of a recipe may become.

    Raises:
        InputError: names the option and the value.
    """
    return int(number(name, value, f"a whole number >= {least}", lambda x: x == int(x) and x >= least))
