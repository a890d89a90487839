"""Matches the names of parameters that a flat optimizer leaves in place."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from trainflat.core.errors import InputError


def matches(pattern: str, name: str) -> bool:
    """Matches a name with a pattern: a part of the name, or a glob where it has stars."""
    return pattern in name or fnmatchcase(name, pattern)


def refuse_idle_patterns(patterns: Iterable[str], groups: list[dict[str, Any]]) -> None:
    """Refuses patterns that match no parameter.

    Raises:
        InputError: names the pattern that no parameter's name matches.
    """
    names = [name for group in groups for name in group.get("param_names", ())]
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise InputError(f"exclude={pattern!r} matches no parameter. Names look like {names[0]!r}, {names[-1]!r}.")
