"""Options of gates, checked where they are used."""

from typing import Any

from trainflat.core.errors import InputError, UnknownName
from trainflat.pruning.base import Scope


def share_to_drop(sparsity: Any) -> float:
    """Raises InputError for what is no share in [0, 1)."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise InputError(f"sparsity is the share of weights to drop, in [0, 1), got {sparsity!r}.")
    return float(sparsity)


def known_scope(scope: Scope) -> Scope:
    """Raises UnknownName for a scope that does not exist."""
    if scope not in ("layer", "global"):
        raise UnknownName("scope", str(scope), ("layer", "global"))
    return scope


def whole(name: str, value: Any) -> int:
    """Raises InputError for what is no whole number of steps >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is a whole number of optimizer steps, at least 1, got {value!r}.")
    return value


def number(name: str, value: Any, *, at_least: float = 0.0) -> float:
    """Raises InputError for what is no finite number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value < float("inf"):
        raise InputError(f"{name} is a number, at least {at_least:g}, got {value!r}.")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """Raises InputError for what is neither true nor false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is true or false, got {value!r}.")
    return value
