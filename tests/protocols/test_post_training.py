"""Protocols of structured pruning: smaller stages, on disk and in the record, from a given or a trained model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from tests.support.teachers import LABELS
from trainflat.core.errors import InputError
from trainflat.records.run import Record

OPTIONS: dict[str, Any] = {"sparsities": [0.3, 0.6], "rows": 16, "budget": "parameters", "shape": "ragged"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("structured")
    torch.manual_seed(0)
    for name, labels in {"model": {}, "tuned": LABELS}.items():
        write(folder / name, BertForSequenceClassification(config("Bert", **labels)))
    return folder


def ran(place: Path, name: str, model: str, out: str, **options: Any) -> tuple[Record, Path]:
    given = recipe(place / model, own_files(place)) | {"protocol": {"name": name, **OPTIONS, **options}}
    given["evaluation"] = {"latency": {"batches": []}}
    record = trainflat.run(given, out=place / out)
    return record, next((place / out).iterdir())


def test_post_training_trains_nothing_and_every_stage_is_smaller(place: Path) -> None:
    record, run = ran(place, "post-training", "tuned", "post")
    assert [stage.name for stage in record.stages] == ["dense", "sparsity-0.30", "sparsity-0.60"]
    assert all(stage.training is None for stage in record.stages)
    dense, *small = record.stages
    assert dense.structure is None
    for stage in small:
        assert stage.structure is not None and stage.structure.sparsity >= stage.target_sparsity
        errors = [(one.before, one.after) for one in stage.structure.repairs if one.before]
        assert errors and all(after <= before for before, after in errors)
        assert len(stage.structure.repairs) == 2 * len(stage.structure.layers) and 0 < stage.structure.error_left < 1
        model = trainflat.load(run / "stages" / stage.name)
        assert sum(p.numel() for p in model.parameters()) == stage.sizes.parameters < dense.sizes.parameters
        widths = [(len(one.heads), one.units) for one in stage.structure.layers]
        assert len(widths) == model.config.num_hidden_layers or min(widths) == (0, 0)
    given = trainflat.load(place / "tuned").state_dict()
    assert all(torch.equal(given[n], p) for n, p in trainflat.load(run / "stages" / "dense").state_dict().items())


def test_structured_trains_the_dense_model_and_each_smaller_one(place: Path) -> None:
    record, _ = ran(place, "structured", "model", "structured")
    assert all(stage.training is not None and stage.training.steps > 0 for stage in record.stages)
    assert [stage.structure is None for stage in record.stages] == [True, False, False]


def test_a_stage_that_is_recalled_is_the_one_that_was_made(place: Path) -> None:
    whole, run = ran(place, "structured", "model", "again")
    last = run / "stages" / "sparsity-0.60"
    before = (last / "model.safetensors").read_bytes()
    for path in [run / "record.json", *last.iterdir()]:
        path.unlink()
    last.rmdir()
    again, _ = ran(place, "structured", "model", "again")
    assert again.digest == whole.digest and (last / "model.safetensors").read_bytes() == before


def test_a_model_that_has_learned_nothing_is_refused_before_it_is_pruned(place: Path) -> None:
    write(place / "bare", BertModel(config("Bert")))
    with pytest.raises(InputError, match=r"bare.*(head|fine-tuned)"):
        ran(place, "post-training", "bare", "untuned")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": "obz"}, "obz"),
        ({"repair": "last-squares"}, "last-squares"),
        ({"budget": "seconds"}, "budget"),
        ({"rows": 0}, "rows"),
        ({"sparsities": [0.6, 0.3]}, "ascending"),
    ],
)
def test_wrong_options_are_one_line(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ran(place, "post-training", "tuned", "wrong", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "fisher"])
def test_scores_choose_different_units(place: Path, pruner: str) -> None:
    record, _ = ran(place, "post-training", "tuned", pruner, pruner=pruner, repair="none", sparsities=[0.4])
    structure = record.stages[-1].structure
    assert structure is not None and (structure.score, structure.repair) == (pruner, "none")


def test_latency_is_a_budget_of_this_machine(place: Path) -> None:
    record, run = ran(place, "post-training", "tuned", "latency", budget="latency", length=8, sparsities=[0.05])
    assert (run / "latency.json").is_file()
    assert record.stages[-1].timing.predicted_seconds is not None
