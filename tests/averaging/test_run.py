"""A whole run of a recipe with averaging: what its stages hold is what was evaluated, and what the record says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import assert_sound, own_files, recipe
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors
from trainflat.core.rng import derive_seed
from trainflat.evaluation import score
from trainflat.recipe import load_recipe
from trainflat.records.run import Record

SWA = {"name": "swa", "start": 0.25, "every": 0.5}  # of 10 steps, 5 per epoch: after 5, 8 and 10


def given(folder: Path, **options: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = folder / "model"
    if not model.exists():
        write(model, BertForSequenceClassification(config("Bert")))
    training = {"epochs": 2, "evaluate_every": 4, "averaging": SWA} | options
    made = recipe(model, own_files(folder), **training)
    made["training"]["optimizer"]["lr"] = 1e-2
    return made | {"protocol": {"name": "iterative", "sparsities": [0.5], "rewind": 3}}


def run(folder: Path, name: str, **options: Any) -> tuple[Record, Path]:
    record = trainflat.run(given(folder, **options), out=folder / name)
    [run_folder] = (folder / name).iterdir()
    return record, run_folder


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_stage_is_the_average_that_was_scored(tmp_path: Path, keep: str) -> None:
    record, folder = run(tmp_path, keep, keep=keep)
    assert_sound(record, tmp_path / keep)
    made = load_recipe(record.recipe)
    task = made.task.build(data=None, seed=derive_seed(made.seed, "rows"))
    for stage in record.stages:
        training = stage.training
        by_step = {int(entry["step"]): entry for entry in training.evaluations}
        assert [by_step[step]["averaged_models"] for step in (4, 8)] == [0, 2]
        assert training.averaging.name == "swa"
        assert training.averaging.models == (2 if keep == "best" else 3)
        assert training.best_step == (8 if keep == "best" else None)
        saved = folder / "stages" / stage.name
        model = AutoModelForSequenceClassification.from_pretrained(saved, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(saved)
        _, evaluation = task.encode(tokenizer, made.training.max_length)
        assert score(task, model, evaluation[task.split], tokenizer) == stage.scores[task.split]
        if keep == "best":
            assert by_step[8][f"{task.split}/{task.metric}"] == pytest.approx(stage.scores[task.split][task.metric])
    again, _ = run(tmp_path, f"{keep}-again", keep=keep)
    assert again.digest == record.digest


def test_rewinding_goes_back_to_the_weights_not_to_their_average(tmp_path: Path) -> None:
    """And the training itself is the one without averaging."""
    ema = {"name": "ema", "decay": 0.5}
    (averaged, one), (plain, two) = run(tmp_path, "averaged", averaging=ema), run(tmp_path, "plain", averaging=None)
    snapshots = [load_tensors(folder / "rewind" / "weights.safetensors")[0] for folder in (one, two)]
    assert all(torch.equal(tensor, snapshots[1][name]) for name, tensor in snapshots[0].items())
    curves = [[entry["loss"] for entry in r.stages[0].training.curve] for r in (averaged, plain)]
    assert curves[0] == curves[1]
    weights = [load_tensors(folder / "stages" / "dense" / "model.safetensors")[0] for folder in (one, two)]
    assert not all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert "averaging" not in plain.model_dump(mode="json")["stages"][0]["training"]


def test_a_plan_counts_the_models_and_refuses_none(tmp_path: Path) -> None:
    assert trainflat.plan(given(tmp_path)).features["averaging"][1] == "3 models of each training"
    assert trainflat.plan(given(tmp_path, averaging=None)).features["averaging"] == (None, "")
    with pytest.raises(InputError, match=r"averaging swa .* would average no model in 10 steps, 5 per epoch"):
        trainflat.plan(given(tmp_path, averaging={"name": "swa", "every": 3}))


@pytest.mark.parametrize(
    ("averaging", "message"),
    [
        ("sma", r"no averaging is called 'sma'\. Did you mean 'swa'"),
        ({"name": "swa", "evry": 1}, r"no option of averaging 'swa' is called 'evry'\. Did you mean 'every'"),
        ({"name": "swa", "model": "x"}, "no option of averaging 'swa' is called 'model'"),
        ({"name": "swa", "start": 1.5}, r"start is a share of the training, in \[0, 1\), got 1\.5"),
        ({"name": "ema", "decay": True}, r"decay is a share, in \[0, 1\), got True"),
        ({"every": 2}, r"training\.averaging: name an averaging: swa, ema"),
        (3, r"training\.averaging: a mapping is expected|training\.averaging: .*mapping"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(averaging: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_recipe({"task": "stdlib-docs", "model": "minilm", "training": {"averaging": averaging}})
    assert "\n" not in str(error.value)


def test_recipes_name_it_shortly_or_in_full() -> None:
    base = {"task": "stdlib-docs", "model": "minilm"}
    short = load_recipe(base | {"training": {"averaging": "swa"}})
    full = load_recipe(base | {"training": {"averaging": {"name": "swa", "start": 0.5, "every": 1}}})
    overridden = load_recipe(base, ["training.averaging=swa", "training.averaging.every=1.0"])
    assert short.hash == full.hash == overridden.hash
    assert load_recipe(base | {"training": {"averaging": None}}).hash == load_recipe(base).hash != short.hash
    assert load_recipe(short.resolved()).hash == short.hash
