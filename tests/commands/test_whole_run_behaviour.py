"""Loyalty and behavioural tests at every stage of a run, also of one that was interrupted, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.commands import Command, command
from tests.support.families import WORDS, config, write
from tests.support.runs import Saying, recipe
from trainflat.cli.plans import print_plan
from trainflat.core.rng import derive_seed
from trainflat.evaluation import predictions_of
from trainflat.evaluation.loyalty import measure_loyalty
from trainflat.models import load_encoder
from trainflat.recipe import load_recipe
from trainflat.records.run import Record, Stage
from trainflat.tasks import TASKS

MEASURED = {"latency": {"batches": []}, "int8": True, "loyalty": {"base": 2}}


def rows(folder: Path) -> str:
    """Forty rows that are called negative and positive."""
    path = folder / "rows.jsonl"
    texts = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 3 + i % 6)) for i in range(40)]
    made = [{"text": text, "label": ["negative", "positive"][i % 2]} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(path)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("behaviour")
    torch.manual_seed(0)
    model = write(folder / "model", BertForSequenceClassification(config("Bert")))
    task = {"name": "files", "train_file": rows(folder), "text": "text", "label": "label"}
    made = recipe(model, task, optimizer={"name": "adamw", "lr": 3e-2})
    made["protocol"] = {"name": "one-shot", "sparsities": [0.5, 0.8]}
    return made | {"evaluation": {**MEASURED, "checklist": {"suite": "mini-sentiment", "cases": 5}}}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(given: dict[str, Any], out: Path) -> Record:
    return trainflat.run(given, out=out, progress=Saying())


def test_stages_are_compared_with_the_dense_one(record: Record, given: dict[str, Any], out: Path) -> None:
    """As the models on disk answer; the dense stage is compared with its int8 copy alone."""
    folder = trainflat.plan(given, out=out).folder
    task = TASKS.read(given["task"]).build(data=None, seed=derive_seed(0, "rows"))
    found = {}
    for stage in record.stages:
        encoder = load_encoder(str(folder / "stages" / stage.name), task.head, fine_tuned=True)
        split = task.encode(encoder.tokenizer, 16)[1][task.split]
        found[stage.name] = predictions_of(encoder.model, split, encoder.tokenizer)
    dense, *others = record.stages
    assert dense.loyalty is None and dense.int8 is not None and dense.int8.loyalty is not None
    for stage in others:
        assert stage.loyalty == measure_loyalty(task, split, found["dense"], found[stage.name], base=2)
        assert stage.int8 is not None and stage.int8.loyalty is not None and stage.int8.loyalty.to == "dense"


def test_every_stage_and_its_copy_answers_the_same_cases(record: Record) -> None:
    copies = [copy for stage in record.stages for copy in (stage, stage.int8) if copy is not None]
    told = [copy.checklist for copy in copies]
    assert len(told) == 6 and all(one is not None for one in told)
    alike = {
        (one.suite, one.sha256, one.most, one.seed, tuple((t.name, t.cases) for t in one.tests)) for one in told if one
    }
    [(suite, _, most, seed, tests)] = alike
    assert (suite, most, seed, len(tests)) == ("mini-sentiment", 5, 0, 12)
    assert max(cases for _, cases in tests) == 5


def test_a_run_that_goes_on_compares_with_the_dense_model_on_disk(
    record: Record, given: dict[str, Any], out: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path / "runs")
    folder = next((tmp_path / "runs").iterdir())
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "stages" / "sparsity-0.80")
    assert trainflat.run(given, out=tmp_path / "runs").digest == record.digest


def test_the_plan_says_what_is_measured(given: dict[str, Any], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(trainflat.plan(given, out=out / "other"))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "loyalty every stage's answers are compared with those of dense, base 2" in said
    assert "checklist mini-sentiment: 57 cases" in said


def test_recipes_without_keep_their_hash(given: dict[str, Any]) -> None:
    plain = given | {"evaluation": {"latency": {"batches": []}}}
    off = given | {"evaluation": {"latency": {"batches": []}, "loyalty": False, "checklist": None}}
    assert load_recipe(plain).hash == load_recipe(off).hash
    assert not {"loyalty", "checklist"} & set(load_recipe(plain).resolved()["evaluation"])
    short = load_recipe(given | {"evaluation": {"loyalty": True, "checklist": "mini-sentiment"}}).resolved()[
        "evaluation"
    ]
    assert short["loyalty"] == {"to": "dense", "base": "e"}
    assert short["checklist"] == {"suite": "mini-sentiment", "cases": 500, "seed": 0, "labels": None}


def test_a_protocol_without_a_dense_stage_names_its_model(
    given: dict[str, Any], out: Path, record: Record, tmp_path: Path
) -> None:
    dense = trainflat.plan(given, out=out).folder / "stages" / "dense"
    ticket = given | {"protocol": {"name": "ticket", "sparsity": 0.5, "structure": "random"}}
    named = ticket | {"evaluation": {"latency": {"batches": []}, "loyalty": {"to": str(dense)}}}
    [stage] = trainflat.run(named, out=tmp_path / "runs").stages
    assert isinstance(stage, Stage) and stage.loyalty is not None and stage.loyalty.to == str(dense)
    assert stage.loyalty.base == "e"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"protocol": {"name": "ticket", "sparsity": 0.5, "structure": "random"}}, "protocol ticket has none"),
    ({"evaluation": {"loyalty": {"to": "/no/such"}}}, "evaluation.loyalty.to: there is no model folder /no/such"),
    ({"evaluation": {"loyalty": {"base": 10}}}, "evaluation.loyalty.base"),
    ({"evaluation": {"checklist": "mini"}}, "evaluation.checklist.suite: no suite is called 'mini'"),
    ({"evaluation": {"checklist": {}}}, "evaluation.checklist.suite"),
    (
        {"evaluation": {"checklist": {"suite": "mini-sentiment", "labels": ["bad", "good"]}}},
        "the classes of files (negative, positive) are not known to a sentiment suite",
    ),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda made: command(made, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(("change", "why"), REFUSED)
def test_what_cannot_be_measured_is_refused_in_one_line(
    change: dict[str, Any], why: str, given: dict[str, Any], tmp_path: Path, run: Command
) -> None:
    code, line = run(given | change)
    assert code == 2 and why in line
    assert not (tmp_path / "runs").exists()


def test_other_cases_under_the_same_name_are_another_run(given: dict[str, Any], tmp_path: Path, run: Command) -> None:
    suite = tmp_path / "own.jsonl"
    case = {"test": "t", "capability": "C", "type": "MFT", "expect": "label", "examples": ["flat"], "labels": [2]}
    about = json.dumps({"format": 1, "name": "own", "kind": "sentiment"}) + "\n"
    own = given | {"evaluation": {"latency": {"batches": []}, "checklist": str(suite)}}
    suite.write_text(about + json.dumps(case) + "\n")
    assert run(own) == (0, "")
    folder = next((tmp_path / "runs").iterdir())
    (folder / "record.json").unlink()
    suite.write_text(about + json.dumps(case | {"labels": [0]}) + "\n")
    code, line = run(own)
    assert code == 2 and "was begun with other cases of suite own" in line
