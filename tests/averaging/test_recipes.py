"""The paper's recipes with SWA follow its protocol and quote its figures."""

import csv
from importlib.resources import files
from typing import Any

import pytest

from tests.support.recipes import FEW_ROWS, GLUE, header
from trainflat.averaging import AVERAGING, models_taken
from trainflat.recipe import load_recipe, packaged_recipes

NAMES = [name for name in packaged_recipes() if "-swa-" in name]
tasks = pytest.mark.parametrize("task", GLUE)


def reference(table: str) -> list[dict[str, Any]]:
    with (files("trainflat") / "report/reference" / table).open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def test_there_is_one_for_every_task_that_the_paper_averages() -> None:
    averaged = {r["task"] for r in reference("glue_squad_bert_base.csv") if r["optimizer"] == "swa"}
    assert {f"paper/{task}-swa-imp" for task in GLUE} == set(NAMES)
    assert averaged == set(GLUE)


@tasks
def test_protocol(task: str) -> None:
    """Section 3 and appendix A: lr 8e-5, the last half, ends of epochs 6 to 10 or 2, 2.5 and 3; else as without."""
    recipe, without = (load_recipe(f"paper/{task}-{kind}").resolved() for kind in ("swa-imp", "imp"))
    training, plain = recipe["training"], without["training"]
    optimizer = training.pop("optimizer")
    assert {"name": "adam", "lr": 8e-5, "weight_decay": 0.0}.items() <= optimizer.items()
    averaging = training.pop("averaging")
    assert averaging == {"name": "swa", "start": 0.5, "every": 1.0 if task in FEW_ROWS else 0.5}
    assert models_taken(AVERAGING.read(averaging), int(training["epochs"]) * 100, 100) == (5 if task in FEW_ROWS else 3)
    assert (training.pop("keep"), plain.pop("keep")) == ("last", "best")
    del plain["optimizer"], recipe["name"], without["name"]
    assert recipe == without


@tasks
def test_figures(task: str) -> None:
    """Table 1's, of the test split, and table 4's, of the sharpness at that sparsity."""
    text = " ".join(line.strip() for line in header(f"paper/{task}-swa-imp"))
    scores = [r for r in reference("glue_squad_bert_base.csv") if r["task"] == task and r["split"] == "test"]
    for optimizer in ("swa", "sam", "adam"):
        name = optimizer.upper() if optimizer != "adam" else "Adam"
        [score] = [r for r in scores if (r["optimizer"], r["setting"]) == (optimizer, "imp")]
        assert f"at {score['sparsity_percent']}% sparsity" in text
        assert f"{score['mean']} ± {score['std']} with {name}" in text
        wanted = (task, optimizer, score["sparsity_percent"])
        [sharp] = [
            r
            for r in reference("sharpness.csv")
            if (r["task"], r["optimizer"], r["sparsity_percent"]) == wanted and float(r["epsilon"]) == 1e-3
        ]
        assert f"{sharp['sharpness_mean']} ± {sharp['sharpness_std']} with {name}" in text
    assert "the paper's figures, not ours, and of GLUE's test split" in text
