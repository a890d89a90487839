"""The recipes of ``experiments.learned``: each is one that can be run, and only teachers differ between two arms."""

from pathlib import Path

import pytest

from experiments.learned import METHODS, RADII, SIZES, TASKS, chosen, pruning, teaching
from trainflat.core.files import write_json
from trainflat.recipe import load_recipe


@pytest.mark.parametrize("task", TASKS)
def test_two_arms_differ_in_the_teacher_alone(task: str) -> None:
    for method in METHODS:
        one, other = (load_recipe(pruning(task, method, t, f"runs/{t}", 1)).resolved() for t in ("adamw", "sam"))
        for recipe, teacher in ((one, "adamw"), (other, "sam")):
            recipe["name"] = recipe["name"].removesuffix(teacher)
            taught = recipe["training"].get("distillation")
            if taught is None:
                recipe["model"]["name"] = recipe["model"]["name"].removesuffix(teacher)
            else:
                taught["teacher"] = taught["teacher"].removesuffix(teacher)
        assert one == other
    adamw, sam = (load_recipe(teaching(task, t, 0.01, 1)).training for t in ("adamw", "sam"))
    assert (sam.optimizer.name, sam.optimizer.rho) == ("sam", 0.01)
    assert (adamw.optimizer.lr, adamw.epochs) == (sam.optimizer.lr, sam.epochs)


def test_every_size_is_asked_of_what_is_learned_and_of_what_is_pruned_afterwards() -> None:
    learned = [load_recipe(pruning("stsb", method, "adamw", "runs/dense", 0)).protocol for method in METHODS]
    targets = [one.method.target_sparsity for one in learned if "method" in one.options]
    assert targets == [*SIZES, 0.75, 0.8]
    assert all(list(one.sparsities) == SIZES for one in learned if "method" not in one.options)


def test_the_radius_is_that_of_the_best_pruned_models(tmp_path: Path) -> None:
    runs = [{"teacher": "adamw", "rho": 0.0, "dense": 9.0, "pruned": [9.0, 9.0]}]
    runs += [{"teacher": "sam", "rho": r, "dense": 5.0 - k, "pruned": [k % 3, k % 3]} for k, r in enumerate(RADII)]
    write_json(tmp_path / "rho.json", {"runs": runs})
    assert chosen(tmp_path / "rho.json") == RADII[2]
