"""What each tier of the tests takes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.marks import first_cases, quick

ROOT = Path(__file__).resolve().parents[2]


def item(name: str, *marks: str) -> Any:
    return SimpleNamespace(nodeid=name, get_closest_marker=lambda mark: mark in marks or None)


def test_the_quick_tier_takes_the_first_case_of_each_test_that_takes_no_seconds() -> None:
    names = ["a.py::one[x]", "a.py::one[y]", "b.py::one[y]", "a.py::whole", "src/a.py::a.f"]
    items = [item("a.py::kill[z]", "long"), *map(item, names), item("a.py::whole run", "long")]
    assert [one.nodeid for one in first_cases(items)] == [names[0], *names[2:]]


def test_other_cases_than_those_chosen_are_slow() -> None:
    plain, slow = quick([1, 2], 1)
    assert plain == 1 and slow.values == (2,) and [mark.name for mark in slow.marks] == ["slow"]


@pytest.mark.slow
def test_the_quick_tier_enters_every_room() -> None:
    command = [sys.executable, "-m", "pytest", "--quick", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    rooms = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert {line.split("/")[1] for line in done.stdout.splitlines() if line.startswith("tests/")} == rooms
