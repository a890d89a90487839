"""Which cases of a long family every run of the tests takes; ``make test-all`` takes all."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """The cases, the others than those chosen marked ``slow``."""
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in cases]
