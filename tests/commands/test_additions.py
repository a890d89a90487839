"""Adding one of a kind is one new file and its line in one table: shown by a toy of each, in a copy of the package.

No other file of the copy is touched. A toy is then named as a user would name it: in a recipe that is planned and run,
in ``trainflat list``, in the report of the run and in an export of its model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import trainflat
from tests.support import toys
from tests.support.fresh import ROOT, run_fresh

PACKAGE, TOYS = Path(trainflat.__file__).parent, Path(toys.__file__).parent
# By kind: the new file, the class in it, and the files of the tables with the table and the line in it.
KINDS: dict[str, tuple[str, str, list[tuple[str, str, str]]]] = {
    "optimizer": ("optim/toy.py", "ToyOptimizer", [("optim/__init__.py", "OPTIMIZERS", "toy=ToyOptimizer,")]),
    "feature": (
        "training/features/toy.py",
        "ToyFeature",
        [("training/features/__init__.py", "FEATURES", '"toy": ToyFeature,')],
    ),
    "score": (
        "pruning/scores/toy.py",
        "ToyScore",
        # Of the one or the other the line gives it a word: at once, or while the model trains.
        [
            ("pruning/__init__.py", "PRUNERS", "toy=ToyScore,"),
            ("pruning/gates/__init__.py", "GATES", "toy_score=ToyScore,"),
        ],
    ),
    "gate": ("pruning/gates/toy.py", "ToyGate", [("pruning/gates/__init__.py", "GATES", "toy=ToyGate,")]),
    "measure": ("sharpness/toy.py", "ToyMeasure", [("sharpness/__init__.py", "MEASURES", "toy=ToyMeasure,")]),
    "protocol": ("protocols/toy.py", "ToyProtocol", [("protocols/__init__.py", "PROTOCOLS", "toy=ToyProtocol,")]),
    "architecture": ("anatomy/toy.py", "TOY", [("anatomy/families.py", "FAMILIES", '"toy": TOY,')]),
    "exporter": ("export/toy.py", "ToyExporter", [("export/__init__.py", "EXPORTERS", "toy=ToyExporter,")]),
    "section": ("report/sections/toy.py", "ToySection", [("report/sections/__init__.py", "SECTIONS", "ToySection(),")]),
    "task": ("tasks/toy.py", "ToyTask", [("tasks/__init__.py", "TASKS", "toy=ToyTask,")]),
}


def named_in(text: str, table: str, line: str, new: str) -> str:
    """The source of a table with a new line, and the import of what stands in it."""
    start = text.index(f"\n{table}: ")
    end = min(place for close in ("\n)\n", "\n}\n") if (place := text.find(close, start)) >= 0)
    first = text.index("from trainflat")
    return f"{text[:first]}{new}\n{text[first:end]}\n    {line}{text[end:]}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("additions")
    copy = folder / "src" / "trainflat"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, (file, member, tables) in KINDS.items():
        shutil.copy(TOYS / f"{kind}.py", copy / file)
        new = f"from trainflat.{file.removesuffix('.py').replace('/', '.')} import {member}"
        for where, table, line in tables:
            (copy / where).write_text(named_in((copy / where).read_text(), table, line, new))
    code = f"import sys, runpy; sys.path.insert(0, {str(copy.parent)!r}); "
    code += "import trainflat; assert trainflat.__file__.startswith(sys.path[0]); "
    code += "runpy.run_module('tests.support.toys.use', run_name='__main__')"
    done = run_fresh(folder, code=code)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def test_a_toy_of_every_kind_is_there() -> None:
    assert {path.stem for path in TOYS.glob("*.py")} == {*KINDS, "__init__", "use"}
    assert ROOT in PACKAGE.parents


def test_optimizer(found: dict[str, Any]) -> None:
    assert found["plan"][0] == "2.0" and found["trained"][0] == "toy" and found["compared"] == 2.0


def test_feature(found: dict[str, Any]) -> None:
    assert found["plan"][1:3] == [3, "9 counted"]
    assert [{"toy", "3:", "9", "counted"} <= set(line) for line in found["shown"]] == [True]
    assert found["trained"][1:] == [{"toy": 9}, 9.0] and found["hash"] == "3"
    assert found["refused"] == "recipe: training.toy is a whole number, got 'many'."
    assert "training.toys is not a key of recipes" in found["unknown"]
    assert "training.snapshot is not a key of recipes" in found["own"]  # which protocols alone may have


def test_score(found: dict[str, Any]) -> None:
    assert found["pruned"] == [0.5, 0.5] and "toy-score" in found["gates"]


def test_gate(found: dict[str, Any]) -> None:
    assert "toy" in found["gates"]


def test_measure(found: dict[str, Any]) -> None:
    assert found["flatness"] == ["toy_loss"]


def test_protocol(found: dict[str, Any]) -> None:
    assert found["plan"][3:] == ["whole", "half"]


def test_architecture(found: dict[str, Any]) -> None:
    assert found["heads"] > 0


def test_export_format(found: dict[str, Any]) -> None:
    assert found["export"] == 0


def test_section_of_the_report(found: dict[str, Any]) -> None:
    assert found["report"] == [True, True]


def test_task(found: dict[str, Any]) -> None:
    assert found["task"] == ["toy", 24]


def test_trainflat_list_shows_them(found: dict[str, Any]) -> None:
    assert set(found["list"]) == {"tasks", "optimizers", "pruners", "gates", "protocols", "measures", "formats"}
