"""The tests mirror the package's rooms, and what several of them need lies in tests/support."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOMS = {path.name for path in (TESTS.parent / "src" / "trainflat").iterdir() if path.is_dir()} | {"tools"}


def imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def from_test_modules(text: str) -> list[str]:
    return [name for name in imported(text) if name.startswith(("tests.", ".")) and ".test_" in name]


def test_no_file_imports_a_test_module() -> None:
    texts = {path.relative_to(TESTS): path.read_text(encoding="utf8") for path in TESTS.rglob("*.py")}
    assert {str(path): names for path, text in texts.items() if (names := from_test_modules(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from tests.optim.test_sam import quadratic",
        "from tests.optim import test_sam",
        "import tests.optim.test_sam as sam",
        "def f():\n    from .test_sam import quadratic",
    ],
)
def test_every_way_to_import_one_is_seen(text: str) -> None:
    assert from_test_modules(text)


def test_every_test_lies_in_the_folder_of_a_room() -> None:
    assert {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} <= ROOMS
