"""A recipe's words on its optimizer: every option gets a value, and one optimizer has one way to be written."""

import json

import pytest
import torch

from trainflat.core.errors import InputError, UnknownName
from trainflat.optim import OPTIMIZERS
from trainflat.recipe import load_recipe
from trainflat.training.options import read_optimizer

BASES = ["adamw", "adam", "sgd", "rmsprop", "adagrad", "adafactor", "nadam", "rprop", "asgd", "radam", "adamax"]


def recipe(optimizer: object) -> dict[str, object]:
    return {"task": "cola", "model": "minilm", "training": {"optimizer": optimizer}}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("base", BASES)
def test_what_is_complete_stays_as_it_is_and_builds(name: str, base: str):
    given = {} if name in ("adam", "adamw") else {"base": base} | ({"momentum": 0.9} if base == "sgd" else {})
    try:
        filled = OPTIMIZERS.read({"name": name, **given}).dump()
    except InputError as error:
        assert "momentum" in str(error)  # of MSAM and its like, which need one
        return
    assert OPTIMIZERS.read({"name": name, **json.loads(json.dumps(filled))}).dump() == filled
    optimizer = OPTIMIZERS.make(name, [torch.nn.Parameter(torch.zeros(2, 2))], **filled)
    bare = OPTIMIZERS.make(name, [torch.nn.Parameter(torch.zeros(2, 2))], **({"lr": 2e-5} | given))
    groups = zip(optimizer.param_groups, bare.param_groups, strict=True)
    assert all({**one, "params": 0} == {**two, "params": 0} for one, two in groups)


def test_fine_tunings_learning_rate_is_the_default():
    assert load_recipe(recipe("sam")).training.optimizer.lr == 2e-5
    assert load_recipe({"task": "cola", "model": "minilm"}).training.optimizer.section() == {
        "name": "adamw",
        "lr": 2e-5,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 0.01,
        "amsgrad": False,
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("adamw", {"name": "adamw", "lr": "2e-5"}),
        ({"name": "sam", "rho": 0.05}, {"name": "sam", "base": "AdamW", "lr": 2e-5, "weight_decay": 0.01}),
        ({"name": "sam", "rho": 1, "every": "2"}, {"name": "sam", "rho": 1.0, "every": 2, "p": 2, "exclude": []}),
        ({"name": "sam", "p": "inf"}, {"name": "sam", "p": float("inf")}),
        ({"name": "sam", "exclude": "*.bias"}, {"name": "sam", "exclude": ["*.bias"]}),
    ],
)
def test_one_experiment_has_one_hash(one: object, other: object):
    assert load_recipe(recipe(one)).hash == load_recipe(recipe(other)).hash
    assert load_recipe(recipe(one)).hash != load_recipe(recipe({"name": "sam", "rho": 0.02})).hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": [0.9]}, r"betas is a list of 2 numbers such as \[0.9, 0.999\], got \(0.9,\)"),
        ({"betas": 3}, "betas is a list of 2 numbers"),
        ({"betas": ["a", 1]}, "betas is a list of 2 numbers"),
        ({"eps": "abc"}, "eps is a number such as 1e-08, got 'abc'"),
        ({"amsgrad": 1}, "amsgrad is true or false, got 1"),
        ({"lr": None}, "lr is a number"),
        ({"lr": True}, "lr is a number"),
        ({"rho": True}, "rho is the radius of the perturbation"),
        ({"base": "sgd", "momentum": "high"}, "momentum is a number"),
        ({"base": "sgd", "momentum": 10**400}, "momentum is a number"),
        ({"eps": float("inf")}, "eps is a number"),
        ({"lr": 10**400}, "lr is a number > 0, got inf"),
        ({"exclude": {}}, "exclude is a list of parameter names"),
    ],
)
def test_values_are_of_the_kind_of_the_default(options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        OPTIMIZERS.read({"name": "sam", **options})


def test_a_name_that_looks_like_a_number_is_a_name():
    assert OPTIMIZERS.read({"name": "sam", "exclude": "11"}).dump()["exclude"] == ["11"]


def test_without_a_name_it_is_the_default_one():
    given = {"task": "cola", "model": "minilm"}
    assert load_recipe(given, ["training.optimizer.lr=1e-3"]).training.optimizer.name == "adamw"


@pytest.mark.parametrize("given", [{"rho": 1}, 5, []])
def test_what_names_no_optimizer_is_refused(given: object):
    with pytest.raises(InputError, match="optimizer is a name or a mapping"):
        read_optimizer(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["differentiable", "maximize", "foreach", "fused", "capturable"])
@pytest.mark.parametrize("name", ["adamw", "sam"])
def test_how_a_step_is_computed_is_no_option(name: str, key: str):
    with pytest.raises(UnknownName, match=f"is called '{key}'"):
        OPTIMIZERS.read({"name": name, key: True}).dump()
