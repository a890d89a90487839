"""The import checker sees every way to break the floors, and the package breaks none."""

from pathlib import Path

import pytest

from tools.check_imports import check, main, table


@pytest.fixture
def tree(tmp_path):
    """Writes files of a small package and returns what the checker says about it, without the folder's name."""

    def write(**files: str) -> list[str]:
        folder = tmp_path / "trainflat"
        for name, text in {"__init__": "", **files}.items():
            path = folder / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
        return [line.removeprefix(f"{folder}/") for line in check(folder)]

    return write


def test_the_package_holds_the_floors():
    assert check(Path(__file__).parents[2] / "src" / "trainflat") == []


def test_imports_that_point_down_are_fine(tree):
    files = {
        "core__in__errors": "",
        "core__in__registry": "from trainflat.core.errors import InputError",
        "pruning__in____init__": "from trainflat.pruning.cut import cut\nfrom .cut import cut",
        "pruning__in__cut": "import torch, numpy\nfrom trainflat.core import registry\nfrom ..core.errors import E",
        "training__in__trainer": "from transformers import Trainer\nfrom trainflat.pruning import cut",
        "cli__in__main": "import typer\nfrom trainflat.training.trainer import Trainer",
        "__main__": "from trainflat.cli.main import main",
    }
    assert tree(**files) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from trainflat.training import fit",
        "import trainflat.training.fit",
        "from trainflat import training",
        "from ..training import fit",
        "from .. import training",
        "def late():\n    from trainflat.training import fit",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trainflat.training import fit",
        "import importlib\nimportlib.import_module('trainflat.training')",
    ],
)
def test_upwards_is_found_however_it_is_written(tree, statement):
    (line,) = tree(core__in__errors="", pruning__in__cut=statement, training__in__fit="")
    number = statement.count("\n") + 1
    assert line == f"pruning/cut.py:{number}: pruning (floor 5) imports training (floor 8); imports point down only."


def test_one_floor_does_not_know_itself(tree):
    (line,) = tree(optim__in__sam="from trainflat.pruning import Masks", pruning__in____init__="Masks = 1")
    assert "optim (floor 5) imports pruning (floor 5); rooms of one floor never import each other" in line


def test_nothing_leans_on_the_package_itself(tree):
    (line,) = tree(tasks__in__glue="import trainflat")
    assert "tasks (floor 6) imports trainflat from the package itself" in line


def test_every_module_needs_a_floor(tree):
    (line,) = tree(helpers="import torch")
    assert line.startswith("helpers.py:1: helpers has no floor; add it to STORY")


@pytest.mark.parametrize("module", ["pruning__in__a", "core__in__errors"])
def test_low_floors_know_no_foreign_packages(tree, module):
    (line,) = tree(**{module: "import transformers"})
    assert "imports transformers; it may know" in line


@pytest.mark.parametrize(
    "statement",
    [
        "from transformers import Trainer",
        "from transformers import TrainerCallback",
        "from transformers.trainer_utils import set_seed",
        "import transformers\ntransformers.Trainer",
    ],
)
def test_only_training_knows_the_trainer(tree, statement):
    (line,) = tree(evaluation__in__a=statement)
    assert "only training knows transformers.Trainer" in line


def test_models_may_know_the_rest_of_transformers(tree):
    assert tree(models__in__a="import transformers\nfrom transformers import AutoModel\ntransformers.AutoConfig") == []


def test_a_report_reaches_no_torch_over_any_number_of_files(tree):
    files = {
        "report__in__page": "from trainflat.records.run import Record",
        "records__in__run": "import trainflat.core.files",
        "core__in__files": "import json\nfrom torch import Tensor",
    }
    (line,) = tree(**files)
    chain = "trainflat.report.page -> trainflat.records.run -> trainflat.core.files -> torch.Tensor"
    assert line == f"report/page.py:1: report reaches torch: {chain}."


def test_a_report_may_stand_on_files_that_load_torch_only_when_asked(tree):
    lazily = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef save():\n    import torch"
    assert tree(report__in__page="from trainflat.core.files import save", core__in__files=lazily) == []


def test_a_report_itself_does_not_load_torch_even_lazily(tree):
    (line,) = tree(report__in__page="def draw():\n    import torch")
    assert line.startswith("report/page.py:2: report reaches torch")


@pytest.mark.parametrize("head", ["", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "])
def test_a_ring_of_files_is_found_in_one_room_also_for_types(tree, head):
    links = {"a": "from .b import B", "b": "from .c import C", "c": f"{head}from .a import A", "d": "from .a import A"}
    found = tree(**{f"optim__in__{name}": text for name, text in links.items()})
    ring = [f"trainflat.optim.{name}" for name in "abca"]
    assert found[0] == f"optim/a.py:1: a ring of imports: {' -> '.join(ring)}."
    assert [line.partition(":")[0] for line in found] == [f"optim/{name}.py" for name in "abc"]


def test_contributing_shows_the_floors_that_are_held():
    assert table() in (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf8")


def test_an_empty_folder_is_no_success(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no Python file" in capsys.readouterr().out
