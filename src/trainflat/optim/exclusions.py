"""Which parameters a flat optimizer leaves in place, by name."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from trainflat.core.errors import InputError


def matches(pattern: str, name: str) -> bool:
    """A pattern is a part of the name, or has stars."""
    return pattern in name or fnmatchcase(name, pattern)


def refuse_idle_patterns(patterns: Iterable[str], groups: list[dict[str, Any]]) -> None:
    """Catches a misspelt pattern.

    Raises:
        InputError: names the pattern that no parameter's name matches.
    """
    names = [name for group in groups for name in group.get("param_names", ())]
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise InputError(f"exclude={pattern!r} matches no parameter. Names look like {names[0]!r}, {names[-1]!r}.")
