"""``check`` and ``run`` refuse an optimizer that could not act in a training, before anything begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.commands.refusals import check_optimizer
from trainflat.core.errors import InputError
from trainflat.recipe import load_recipe
from trainflat.tasks.base import Head

REFUSED = {
    "parts of a window": (
        {"name": "gsam", "perturb_over": "micro-batch"},
        "training.optimizer gsam: GSAM needs the gradient of the whole window. Use perturb_over: window.",
    ),
    "a phase behind the last step": (
        {"name": "sam", "start": 0.9},
        "training.optimizer sam: no step of 5 would be flat (every 1, start 0.9, stop 1). Train longer, or set a "
        "longer phase.",
    ),
    "a phase between two flat steps": (
        {"name": "sam", "every": 3, "start": 0.7},
        "training.optimizer sam: no step of 5 would be flat (every 3, start 0.7, stop 1). Train longer, or set a "
        "longer phase.",
    ),
    "a walk that does not end": (
        {"name": "entropy-sgd", "inner_steps": 6},
        "training.optimizer entropy-sgd: the weights would not change in 5 steps: they do after every "
        "inner_steps = 6. Train longer, or lower inner_steps.",
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("optimizer")
    torch.manual_seed(0)
    return recipe(write(folder / "model", BertForSequenceClassification(config("Bert"))), own_files(folder))


def overrides(perturb_over: str = "window", **optimizer: Any) -> dict[str, Any]:
    return {"training.optimizer": optimizer, "training.perturb_over": perturb_over}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_both_refuse_in_the_same_words(
    given: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    for call in (trainflat.plan, trainflat.run):
        with pytest.raises(InputError) as error:
            call(given, out=tmp_path / "runs", overrides=overrides(**options))
        assert str(error.value) == message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "sam", "start": 0.7, "perturb_over": "micro-batch"},  # the fifth step of five
        {"name": "entropy-sgd", "inner_steps": 5},
        {"name": "l1", "perturb_over": "micro-batch"},
        {"name": "adamw", "perturb_over": "micro-batch"},
    ],
    ids=str,
)
def test_what_acts_once_will_do(given: dict[str, Any], tmp_path: Path, options: dict[str, Any]) -> None:
    assert trainflat.plan(given, out=tmp_path, overrides=overrides(**options)).steps_per_training == 5


def test_spans_have_no_labels_to_change_and_more_steps_than_rows_tell() -> None:
    spans: Any = SimpleNamespace(name="squad", head=Head("spans"))
    asked = {"task": "squad", "model": "minilm"}
    with pytest.raises(InputError, match=r"^training.optimizer label-noise changes classes or numbers, and squad has"):
        check_optimizer(load_recipe(asked | {"training": {"optimizer": "label-noise"}}), spans)
    check_optimizer(load_recipe(asked | {"training": {"optimizer": {"name": "sam", "start": 0.99}}}), spans)
