"""A round is the same whether the round before was trained in the same process or recalled from disk."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, set_seed

import trainflat
from tests.support.families import config, write
from tests.support.marks import quick
from tests.support.runs import own_files, recipe
from trainflat.averaging import AVERAGING
from trainflat.optim import OPTIMIZERS
from trainflat.protocols import StageStore
from trainflat.pruning import PRUNERS
from trainflat.quantization import QUANTIZERS
from trainflat.records.run import Record
from trainflat.reparametrization import REPARAMETRIZATIONS

TEACHER = {"teacher": "the model's own folder"}
EARLY = {"evaluate_every": 1, "patience": 1, "epochs": 2}
# Each option beside another optimizer: a run per pair would take minutes.
BESIDE: list[dict[str, Any]] = [
    {"precision": "bf16"},
    {"precision": "bf16", "accumulate": 2, "perturb_over": "micro-batch"},
    {"precision": "bf16", "quantization": "q8bert"},
    EARLY | {"precision": "bf16"},
    {"batching": "random", "schedule": "cosine", "warmup": 0.3},
    {"accumulate": 2, "sync_perturbation": True, "max_grad_norm": 0.0},
    EARLY | {"keep": "last"},
    {"distillation": TEACHER},
    {"distillation": TEACHER | {"renew": "best"}, "evaluate_every": 1},
    *({"averaging": name} for name in AVERAGING),
    *({"quantization": name} for name in QUANTIZERS),
    *({"reparametrization": name} for name in REPARAMETRIZATIONS),
]
OPTIONS = {
    f"{name}, {', '.join(f'{k} {v}' for k, v in beside.items() if k != 'distillation')}": beside | {"optimizer": name}
    for name, beside in zip(["sam", "sam", "sam", "sam", *OPTIMIZERS], cycle(BESIDE), strict=False)
}
# Of every section of a training one; no round takes an optimizer's memory from the one before.
FIRST = {next(name for name, one in OPTIONS.items() if key in one) for beside in BESIDE for key in beside}
ROUNDS = {"name": "iterative", "sparsities": [0.5, 0.75], "rewind": 1}
PROTOCOL: dict[str, dict[str, Any]] = {
    "no rewinding": ROUNDS | {"rewind": "none"},
    "one-shot": {"name": "one-shot", "sparsities": [0.5, 0.75]},
    **{f"pruner {name}": ROUNDS | {"pruner": name} for name in PRUNERS},
}


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rounds")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert", num_hidden_layers=1, hidden_dropout_prob=0.1)))
    return folder


def given(place: Path, protocol: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    made = recipe(place / "model", own_files(place), batch_size=20, **training) | {"protocol": protocol}
    if isinstance(training.get("optimizer"), str):
        walk = {"inner_steps": 1} if training["optimizer"].startswith("entropy") else {}
        made["training"]["optimizer"] = {"name": training["optimizer"], "lr": 1e-3} | walk
    if "distillation" in training:
        made["training"]["distillation"] = training["distillation"] | {"teacher": str(place / "model")}
    return made | {"evaluation": {"latency": {"batches": []}}}


def in_one_call(made: dict[str, Any], out: Path) -> Record:
    return trainflat.run(made, out=out)


def a_call_per_stage(made: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Every stage begins as after a kill, and with other random numbers."""
    commit = StageStore.commit

    def stopping(*args: Any) -> None:
        commit(*args)
        raise StoppedError

    for call in range(9):
        set_seed(call)
        with monkeypatch.context() as patch:
            patch.setattr(StageStore, "commit", stopping)
            try:
                return trainflat.run(made, out=out)
            except StoppedError:
                continue
    raise AssertionError("more stages than thought")


def assert_same_run(made: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = in_one_call(made, out / "one"), a_call_per_stage(made, out / "many", monkeypatch)
    assert len(whole.stages) > 1
    for one, other in zip(whole.stages, parts.stages, strict=True):
        assert {k: v for k, v in one.files.items() if other.files[k] != v} == {}
    assert whole.digest == parts.digest


@pytest.mark.parametrize("option", quick(OPTIONS, *FIRST))
def test_every_option_of_training(option: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_run(given(place, ROUNDS | {"sparsities": [0.5]}, OPTIONS[option]), tmp_path, monkeypatch)


@pytest.mark.parametrize("protocol", quick(PROTOCOL, "no rewinding", "one-shot", "pruner random", "pruner grasp"))
def test_every_protocol(protocol: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_run(given(place, PROTOCOL[protocol], {}), tmp_path, monkeypatch)
