"""Which tests belong to which tier: `make test-quick`, `make test` and `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """The cases, the others than those chosen marked ``slow``."""
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def first_cases(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Of each parametrized test its first case, unless the test is marked ``long``; documentation examples stay."""
    first: dict[str, pytest.Item] = {}
    for item in items:
        if not item.get_closest_marker("long"):
            first.setdefault(item.nodeid.partition("[")[0], item)
    return list(first.values())
