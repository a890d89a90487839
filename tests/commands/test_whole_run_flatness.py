"""Flatness measured at the stages of a recipe, and what recipes and records without it keep."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.anatomy.params import prunable
from trainflat.commands import measures
from trainflat.core.errors import InputError
from trainflat.recipe import load_recipe
from trainflat.records.run import Record, Training

ROOT = Path(__file__).resolve().parents[2]
MEASURES = [{"name": "keskar", "space": "full"}, {"name": "ball", "rho": 0.1}, "gradient-norm"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("flatness")
    torch.manual_seed(0)
    made = recipe(write(folder / "model", BertForSequenceClassification(config("Bert"))), own_files(folder))
    made["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    return made | {"evaluation": {"latency": {"batches": []}, "flatness": {"measures": MEASURES, "rows": 10}}}


@pytest.fixture(scope="module")
def record(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Record:
    return trainflat.run(given, out=tmp_path_factory.mktemp("runs"))


def test_every_stage_has_every_measure(record: Record):
    for stage in record.stages:
        assert {name.partition("_")[0] for name in stage.flatness} == {"keskar", "ball", "gradient"}
        assert all(value >= 0 for value in stage.flatness.values())
    dense, pruned = record.stages
    assert dense.flatness != pruned.flatness


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(given: dict[str, Any], tmp_path: Path):
    with torch.device("meta"):
        model = BertForSequenceClassification(config("Bert"))
    weights, matrices = (sum(p.numel() for p in ps) for ps in (model.parameters(), prunable(model).values()))
    left = weights - matrices // 2  # of the pruned stage
    for one, text in [
        ({"name": "keskar", "dimension": left + 1}, f"dimension is {left + 1}, but only {left} weights may move"),
        (
            {"name": "hessian", "k": left + 1, "iterations": weights},
            f"k is {left + 1}, but a Hessian of {left} weights",
        ),
    ]:
        for refuse in trainflat.run, trainflat.plan:
            with pytest.raises(InputError, match=text):
                refuse(given, out=tmp_path, overrides={"evaluation.flatness.measures": [one]})
    assert not list(tmp_path.rglob("*.safetensors"))
    fits = {"measures": [{"name": "keskar", "dimension": left}]}
    assert trainflat.plan(given, out=tmp_path, overrides={"evaluation.flatness": fits})
    all_move = {"measures": [{"name": "keskar", "dimension": weights}], "surviving": False}
    assert trainflat.plan(given, out=tmp_path, overrides={"evaluation.flatness": all_move})


def test_a_count_that_was_added_up_from_fractions_is_the_same_count():
    """Passes are summed in floats where an optimizer takes parts of a batch, and must not change a run's digest."""
    counted = {"optimizer": "sam", "steps": 80, "epochs": 1.0, "best_step": None, "curve": [], "evaluations": []}
    whole, floats = (Training(**counted, passes=passes).model_dump_json() for passes in (160, 160.0))
    assert whole == floats and Training(**counted, passes=86.5).passes == 86.5


def test_it_is_part_of_the_digest(record: Record):
    dense, *others = record.stages
    changed = dense.model_copy(update={"flatness": {}})
    assert record.model_copy(update={"stages": [changed, *others]}).expected_digest() != record.digest


def test_committed_records_and_recipes_without_it_are_what_they_were():
    paths = sorted((ROOT / "results").rglob("record.json"))
    assert paths
    for path in paths:
        record = Record.load(path)  # checks the digest
        if "flatness" not in record.recipe["evaluation"]:
            assert load_recipe(record.recipe).hash == record.recipe_hash, path


@pytest.mark.parametrize(
    ("flatness", "message"),
    [
        ({"measures": ["kesker"]}, "no measure of sharpness is called 'kesker'. Did you mean 'keskar'"),
        ({"measures": [{"name": "ball", "roh": 1}]}, "no option of measure of sharpness 'ball' is called 'roh'"),
        ({"measures": [{"name": "ball", "rho": 0}]}, "rho is the radius of the ball"),
        ({"measures": "keskar"}, "a list of measures is expected"),
        ({"measures": []}, "evaluation.flatness.measures: a list of 1 or more values"),
        ({"measures": ["keskar", "keskar"]}, "two of the measures give a figure called keskar_0.001"),
        (
            {"measures": [{"name": "gaussian", "samples": n} for n in (2, 5)]},
            "two of the measures give a figure called gaussian_0.01. Leave one of them out",
        ),
        ({"rows": 0}, r"evaluation\.flatness\.rows: a number of at least 1 is expected"),
        ({"row": 9}, r"evaluation\.flatness\.row is not a key of recipes\. Did you mean 'rows'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(flatness: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        load_recipe({"task": "stdlib-docs", "model": "minilm", "evaluation": {"flatness": flatness}})


def test_stages_of_half_precision_are_scored_and_measured_in_float32(
    given: dict[str, Any], tmp_path: Path, monkeypatch
):
    """As whoever loads their folders will compute; autocast is for training."""
    seen: dict[str, set[torch.dtype]] = {"predictions_of": set(), "measure_flatness": set()}

    def watched(name: str, inner: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            model = args[0].model if name == "measure_flatness" else args[0]
            linear = model.get_submodule("bert.encoder.layer.0.output.dense")
            hook = linear.register_forward_hook(lambda module, x, y: seen[name].add(y.dtype))
            found = inner(*args, **kwargs)
            hook.remove()
            return found

        return call

    for name in seen:
        monkeypatch.setattr(measures, name, watched(name, getattr(measures, name)))
    trainflat.run(given, out=tmp_path, overrides={"training.precision": "bf16"})
    assert seen == {"predictions_of": {torch.float32}, "measure_flatness": {torch.float32}}
