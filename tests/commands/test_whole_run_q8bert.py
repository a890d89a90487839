"""Quantization-aware training from a recipe: what its stages hold, how it resumes, what records tell of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.families import config, write
from tests.support.plain_loop import collate
from tests.support.runs import Saying, own_files, recipe
from tests.support.training import StoppedError, arguments
from trainflat.cli.plans import print_plan
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors
from trainflat.core.rng import derive_seed
from trainflat.evaluation import score
from trainflat.models import load_encoder
from trainflat.protocols import StageStore
from trainflat.pruning import Masks
from trainflat.quantization import QUANTIZERS
from trainflat.recipe import load_recipe
from trainflat.records.run import Record
from trainflat.report.panels import make_panels
from trainflat.tasks import TASKS
from trainflat.training import FlatTrainer


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("q8bert")
    torch.manual_seed(0)
    model = write(folder / "model", BertForSequenceClassification(config("Bert")))
    made = recipe(model, own_files(folder), quantization="q8bert")
    made["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    return made | {"evaluation": {"latency": {"batches": []}, "int8": True}}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(given: dict[str, Any], out: Path) -> Record:
    return trainflat.run(given, out=out)


def by_hand(folder: Path, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Scores of the int8 copy that a stage's folder gives, and that copy."""
    task = TASKS.read(given["task"]).build(data=None, seed=derive_seed(0, "rows"))
    encoder = load_encoder(str(folder), task.head, fine_tuned=True)
    _, evaluation = task.encode(encoder.tokenizer, 16)
    quantizer = QUANTIZERS.make("q8bert", encoder.model)
    quantizer.load_state_dict(load_tensors(folder / "quantization.safetensors")[0])
    small: Any = quantizer.convert()
    return {name: score(task, small, split, encoder.tokenizer) for name, split in evaluation.items()}, small


def test_every_stage_is_scored_as_the_copy_it_was_trained_for(record: Record, given: dict[str, Any], out: Path):
    run = trainflat.plan(given, out=out).folder
    for stage in record.stages:
        scores, small = by_hand(run / "stages" / stage.name, given)
        assert stage.int8 is not None
        assert stage.int8.scores == scores
        assert (stage.int8.activations, stage.int8.embeddings, stage.int8.head) == ("static", True, True)
        if stage.target_sparsity:
            masks = Masks.load(run / "stages" / stage.name / "masks.safetensors")
            assert not any(
                small.get_submodule(name.removesuffix(".weight")).weight_int8[~mask].any()
                for name, mask in masks.items()
            )
    assert trainflat.run(given, out=out) == record  # which verifies every file


def test_the_plan_names_its_files_and_what_is_trained(record: Record, given: dict[str, Any], out: Path, capsys):
    plan = trainflat.plan(given, out=out)
    print_plan(plan)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "q8bert, weights tensor, activations ema, decay 0.9999" in said
    assert {str(p.relative_to(plan.folder)) for p in plan.folder.rglob("*") if p.is_file()} == set(plan.files)


def test_what_is_stopped_between_stages_goes_on_to_the_same(
    record: Record, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = StageStore.commit

    def stopping(self: StageStore, produced: Any, *given: Any) -> Any:
        if produced.plan.sparsity:
            raise StoppedError
        return commit(self, produced, *given)

    with monkeypatch.context() as patched:
        patched.setattr(StageStore, "commit", stopping)
        with pytest.raises(StoppedError):
            trainflat.run(given, out=tmp_path)
    assert trainflat.run(given, out=tmp_path).digest == record.digest


def test_one_shot_copies_take_the_dense_trainings_ranges(given: dict[str, Any], tmp_path: Path):
    """Also where the dense stage is recalled from its folder."""
    changed = {"protocol": {"name": "one-shot", "sparsities": [0.3]}}
    whole = trainflat.run(given | changed, out=tmp_path)
    folder = trainflat.plan(given | changed, out=tmp_path).folder
    scores, _ = by_hand(folder / "stages" / "sparsity-0.30", given)
    assert whole.stages[1].int8 is not None and whole.stages[1].int8.scores == scores
    for name in ("record.json", "stages/sparsity-0.30/manifest.json"):
        (folder / name).unlink()
    again = trainflat.run(given | changed, out=tmp_path).stages[1]
    assert (again.int8, again.scores) == (whole.stages[1].int8, whole.stages[1].scores)


def test_it_is_another_line_of_a_report(record: Record, given: dict[str, Any], tmp_path: Path):
    said = Saying()
    plain = trainflat.run(given, out=tmp_path, overrides={"training.quantization": None}, progress=said)
    assert plain.stages[0].int8 is not None and plain.stages[0].int8.activations == "token"
    labels = [line.label for panel in make_panels([record, plain]) for line in panel.lines]
    assert len(labels) == 2 and any("q8bert" in label for label in labels)


def test_recipes_without_it_keep_their_hash():
    plain = {"task": "stdlib-docs", "model": "minilm"}
    assert "quantization" not in load_recipe(plain).resolved()["training"]
    short = load_recipe({**plain, "training": {"quantization": "q8bert"}})
    section = short.resolved()["training"]["quantization"]
    assert section == {"name": "q8bert", **{k: p.default for k, p in QUANTIZERS.options("q8bert").items()}}
    assert short.hash == load_recipe(json.loads(json.dumps(short.resolved()))).hash != load_recipe(plain).hash


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ("q8bird", r"no quantization is called 'q8bird'\. Did you mean 'q8bert'"),
        ({"weights": "tensor"}, "name a quantization: q8bert"),
        ({"name": "q8bert", "decay": 2}, r"decay is a share, in \[0, 1\), got 2"),
        ({"name": "q8bert", "bits": 4}, "no option of quantization 'q8bert' is called 'bits'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(quantization: Any, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        load_recipe({"task": "stdlib-docs", "model": "minilm", "training": {"quantization": quantization}})
    with pytest.raises(InputError, match=message):
        FlatTrainer(tiny_bert(), arguments(tmp_path), data_collator=collate, quantization=quantization)
