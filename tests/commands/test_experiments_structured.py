"""The recipes of ``experiments.structured``: each is one that can be run, and every score of units takes part."""

import pytest

from experiments.structured import METHODS, RETRAINED, SPARSITIES, TASKS, pruning, teaching
from trainflat.pruning.structured import UNIT_SCORES
from trainflat.recipe import load_recipe


@pytest.mark.parametrize("task", TASKS)
def test_every_score_is_tried_on_the_same_model_and_sizes(task: str) -> None:
    recipes = [load_recipe(pruning(task, method, 1, "runs/dense")) for method in METHODS]
    assert {one.protocol.pruner.name for one in recipes} == set(UNIT_SCORES)
    assert {(one.model.name, tuple(one.protocol.sparsities)) for one in recipes} == {("runs/dense", tuple(SPARSITIES))}
    assert len({one.hash for one in recipes}) == len(METHODS)
    again = load_recipe(pruning(task, RETRAINED, 0, "runs/dense"))
    assert (again.protocol.name, again.protocol.pruner.name, again.training.epochs) == ("structured", "obs", 2)
    assert load_recipe(teaching(task)).protocol.name == "dense"
