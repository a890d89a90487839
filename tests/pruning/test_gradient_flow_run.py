"""Recipes whose pruner scores by the loss: what a run prunes, what a recipe holds, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, DataCollatorWithPadding

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.cli.plans import print_plan
from trainflat.core.errors import InputError
from trainflat.core.rng import derive_seed
from trainflat.models import load_encoder
from trainflat.objective import Objective
from trainflat.pruning import GraspPruner, LossPreservationPruner, Masks
from trainflat.recipe import load_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return folder


def given(place: Path, **protocol: Any) -> dict[str, Any]:
    made = recipe(place / "model", own_files(place)) | {"protocol": protocol}
    return made | {"evaluation": {"latency": {"batches": []}}}


def objective(place: Path, run: Path, stage: str, rows: int) -> tuple[Any, Objective]:
    """The trained model of a stage, and its loss on the rows that a run of seed 0 draws; in one batch."""
    task = load_recipe(given(place, name="dense")).task.build(data=None, seed=derive_seed(0, "rows"))
    encoder = load_encoder(str(place / "model"), task.head)
    split, _ = task.encode(encoder.tokenizer, 16)
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive_seed(0, "pruning rows")))
    batch = dict(DataCollatorWithPadding(encoder.tokenizer)([split[i] for i in drawn[:rows].tolist()]))
    model = AutoModelForSequenceClassification.from_pretrained(run / "stages" / stage, dtype=torch.float32)
    return model.double(), Objective(model, [batch])


def agree(one: Masks, other: Masks, share: float = 0.01) -> None:
    """But for scores that the order of sums in float32 may turn around."""
    differ = sum(int((one[name] != other[name]).sum()) for name in one)
    assert differ <= share * one.entries


def test_one_shot_and_iterative_prune_by_the_trained_models_scores(place: Path, tmp_path: Path) -> None:
    pruner = {"name": "loss-preservation", "rows": 24, "batch_size": 5}
    trainflat.run(given(place, name="one-shot", sparsities=[0.3, 0.6], pruner=pruner), out=tmp_path / "once")
    run = next((tmp_path / "once").iterdir())
    model, loss = objective(place, run, "dense", 24)
    found = [Masks.load(run / "stages" / f"sparsity-{s}" / "masks.safetensors") for s in ("0.30", "0.60")]
    first = LossPreservationPruner(model, sparsity=0.3, objective=loss).select()
    agree(first, found[0])
    assert found[1].issubset(found[0])

    pruner = {"name": "grasp", "rows": 24, "temperature": 3}
    record = trainflat.run(given(place, name="iterative", sparsities=[0.3, 0.6], pruner=pruner), out=tmp_path / "again")
    run = next((tmp_path / "again").iterdir())
    found = [Masks.load(run / "stages" / f"sparsity-{s}" / "masks.safetensors") for s in ("0.30", "0.60")]
    for stage, sparsity, before, after in [("dense", 0.3, None, found[0]), ("sparsity-0.30", 0.6, *found)]:
        model, loss = objective(place, run, stage, 24)
        agree(GraspPruner(model, sparsity=sparsity, masks=before, temperature=3, objective=loss).select(), after)
    assert record.recipe["protocol"]["pruner"] == {"name": "grasp", "rows": 24, "batch_size": 16, "temperature": 3.0}


def test_a_repeated_run_has_the_same_digest(place: Path, tmp_path: Path) -> None:
    made = given(place, name="iterative", sparsities=[0.5], pruner={"name": "gradient-norm", "rows": 16})
    one, again = (trainflat.run(made, out=tmp_path / name) for name in ("a", "b"))
    assert one.digest == again.digest


def test_however_it_is_written_a_pruner_is_one_and_those_without_options_keep_their_hash(place: Path) -> None:
    names = ["grasp", {"name": "grasp"}, {"name": "grasp", "temperature": 200, "rows": 512}]
    written = [load_recipe(given(place, name="one-shot", pruner=name)) for name in names]
    assert len({one.hash for one in written}) == 1
    plain = [given(place, name="one-shot"), *(given(place, name="one-shot", pruner=p) for p in ("magnitude",))]
    plain.append(given(place, name="one-shot", pruner={"name": "magnitude"}))
    assert {load_recipe(one).resolved()["protocol"]["pruner"] for one in plain} == {"magnitude"}
    assert load_recipe(written[0]) == written[0]


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (
            {"name": "grasp", "temperature": -1},
            "pruner: temperature of the logits is a number above 0, got -1",
        ),
        ({"name": "grasp", "rows": 0}, "pruner: rows of a pruner is a number of training rows, at least 1, got 0"),
        (
            {"name": "grasp", "rows": "many"},
            "rows of a pruner is a number of training rows, at least 1, got 'many'",
        ),
        ({"name": "grasp", "sparsity": 0.5}, "no option of pruner 'grasp' is called 'sparsity'"),
        ({"name": "magnitude", "rows": 4}, "no option of pruner 'magnitude' is called 'rows'"),
        ("grap", "no pruner is called 'grap'. Did you mean 'grasp'"),
        ({"rows": 4}, "name a pruner: magnitude, random"),
    ],
)
def test_what_no_recipe_may_hold(place: Path, pruner: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(given(place, name="one-shot", pruner=pruner))


def test_check_shows_the_options(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    print_plan(trainflat.plan(given(place, name="one-shot", sparsities=[0.5], pruner="grasp")))
    assert "pruner grasp (temperature 200.0, rows 512, batch_size 16)" in capsys.readouterr().out
