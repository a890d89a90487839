"""Flatness measured at the stages of a recipe, and what recipes and records without it keep."""

from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.test_models_families import config, write
from tests.test_whole_run_families import own_files, recipe
from trainflat.errors import InputError
from trainflat.recipe import load_recipe
from trainflat.record import Record

ROOT = Path(__file__).resolve().parents[1]
MEASURES = [{"name": "keskar", "space": "full"}, {"name": "ball", "rho": 0.1}, "gradient-norm"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    folder = tmp_path_factory.mktemp("flatness")
    torch.manual_seed(0)
    given = recipe(write(folder / "model", BertForSequenceClassification(config("Bert"))), own_files(folder))
    given["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    given["evaluation"] = {"latency": {"batches": []}, "flatness": {"measures": MEASURES, "rows": 10}}
    return trainflat.run(given, out=folder / "runs")


def test_every_stage_has_every_measure(record: Record):
    for stage in record.stages:
        assert {name.partition("_")[0] for name in stage.flatness} == {"keskar", "ball", "gradient"}
        assert all(value >= 0 for value in stage.flatness.values())
    dense, pruned = record.stages
    assert dense.flatness != pruned.flatness


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
        ({"measures": []}, "evaluation.flatness.measures: List should have at least 1 item"),
        ({"rows": 0}, r"evaluation\.flatness\.rows: Input should be greater"),
        ({"row": 9}, r"evaluation\.flatness\.row is not a key of recipes\. Did you mean 'rows'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(flatness: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        load_recipe({"task": "stdlib-docs", "model": "minilm", "evaluation": {"flatness": flatness}})
