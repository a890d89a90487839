"""Stages that runs train alike have one key, and a run that takes one from another ends with the same bits."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.support.grids import tiny_recipe
from trainflat.commands.check import plan
from trainflat.commands.claims import read_claim
from trainflat.commands.grid.sharing import stage_keys
from trainflat.commands.run import run
from trainflat.protocols import workspace

ONE_SHOT = {"protocol": {"name": "one-shot", "sparsities": [0.5, 0.7]}}
ITERATIVE = {"protocol": {"name": "iterative", "sparsities": [0.5, 0.7]}}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    return tiny_recipe(tmp_path)


def keys(recipe: dict[str, Any], **changed: Any) -> dict[str, str]:
    return stage_keys(plan({**recipe, **changed}))


def test_the_dense_model_is_one_for_protocols_that_train_it_alike(recipe: dict[str, Any]) -> None:
    assert (
        keys(recipe, **ONE_SHOT)["dense"]
        == keys(recipe, **ITERATIVE)["dense"]
        == keys(recipe, protocol="dense")["dense"]
    )


def test_rounds_are_one_as_long_as_the_way_to_them_is(recipe: dict[str, Any]) -> None:
    longer = {"name": "iterative", "sparsities": [0.5, 0.7, 0.9]}
    mine, other = keys(recipe, **ITERATIVE), keys(recipe, protocol=longer)
    assert mine.items() <= other.items()
    assert keys(recipe, protocol={"name": "iterative", "sparsities": [0.7]})["sparsity-0.70"] != mine["sparsity-0.70"]
    for option in ({"pruner": "random"}, {"scope": "layer"}, {"rewind": "none"}, {"head": "keep"}):
        changed = keys(recipe, protocol=ITERATIVE["protocol"] | option)
        assert changed["dense"] == mine["dense"]
        assert changed["sparsity-0.50"] != mine["sparsity-0.50"]


def test_rounds_that_go_back_to_a_step_are_not_shared_since_its_weights_lie_in_one_run(recipe: dict[str, Any]) -> None:
    assert keys(recipe, protocol={"name": "iterative", "sparsities": [0.5], "rewind": 2}) == {}


@pytest.mark.parametrize("key", ["seed", "task", "model", "training"])
def test_what_decides_the_weights_decides_the_key(recipe: dict[str, Any], key: str) -> None:
    other = copy.deepcopy(recipe)
    changes = {"seed": 1, "task": other["task"] | {"rows": 20}, "model": {"name": other["model"], "layers": 1}}
    other[key] = changes.get(key, other["training"] | {"epochs": 2})
    assert keys(other)["dense"] != keys(recipe)["dense"]


def test_what_is_measured_and_who_is_told_do_not_decide_the_key(recipe: dict[str, Any]) -> None:
    other = {**recipe, "name": "other", "evaluation": {"int8": True}}
    assert keys(other) == keys(recipe)


def test_a_teacher_of_the_run_s_own_is_the_dense_model_of_others(recipe: dict[str, Any]) -> None:
    taught = recipe["training"] | {"distillation": {"teacher": "dense", "weight": 0.5, "temperature": 2.0}}
    method = {"name": "cofi", "target_sparsity": 0.5, "score_lr": 7.0}
    structured = {"name": "structured", "method": method, "dense": {}}
    assert keys(recipe, protocol=structured, training=taught)["dense"] == keys(recipe, protocol="dense")["dense"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names the stages as they are trained."""
    names: list[str] = []
    fit = workspace.fit

    def noted(*args: Any, **options: Any) -> Any:
        names.append(Path(options["folder"]).name)
        return fit(*args, **options)

    monkeypatch.setattr(workspace, "fit", noted)
    return names


def test_a_stage_that_is_taken_from_another_run_changes_no_bit(
    recipe: dict[str, Any], tmp_path: Path, trained: list[str]
) -> None:
    alone = run({**recipe, **ONE_SHOT}, out=tmp_path / "alone")
    run(recipe, out=tmp_path / "runs")
    other = tmp_path / "runs" / plan(recipe).folder.name
    trained.clear()
    taken = run({**recipe, **ONE_SHOT}, out=tmp_path / "runs", shared={"dense": other})
    assert taken.digest == alone.digest
    assert trained == []


def test_rounds_are_taken_with_their_masks(recipe: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    alone = run({**recipe, **ITERATIVE}, out=tmp_path / "alone")
    run(recipe, out=tmp_path / "runs")
    other = tmp_path / "runs" / plan(recipe).folder.name
    trained.clear()
    shared = dict.fromkeys(("dense", "sparsity-0.50"), other)
    assert run({**recipe, **ITERATIVE}, out=tmp_path / "runs", shared=shared).digest == alone.digest
    assert trained == ["sparsity-0.70"]


@pytest.mark.parametrize("what", ["model", "environments"])
def test_a_run_of_another_model_or_environment_is_not_taken_from(
    recipe: dict[str, Any], tmp_path: Path, trained: list[str], what: str
) -> None:
    run(recipe, out=tmp_path / "runs")
    other = tmp_path / "runs" / plan(recipe).folder.name
    claim = read_claim(other)
    changed: dict[str, Any] = {"model": "0" * 64, "environments": [claim.environments[0] | {"threads": 99}]}
    claim.model_copy(update={what: changed[what]}).save(other)
    trained.clear()
    run({**recipe, **ONE_SHOT}, out=tmp_path / "runs", shared={"dense": other})
    assert trained == ["dense"]
