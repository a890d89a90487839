"""The contract that every member of the table keeps, and the way from a recipe's words to an optimizer."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from tests.support.optimizer_family import options, setting, train, weights
from trainflat.core.errors import InputError, UnknownName
from trainflat.optim import OPTIMIZERS, SAM, Adam, AdamW, FlatOptimizer

members = pytest.mark.parametrize("method", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
names = pytest.mark.parametrize("name", OPTIMIZERS)


@names
def test_resuming_continues_the_same_path(name):
    method = partial(OPTIMIZERS[name], **options(name))
    model, batches = setting()
    optimizer = method(model.parameters(), lr=0.05)
    train(model, optimizer, batches[:3])
    kept, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, batches[3:])

    resumed, _ = setting(seed=1)
    resumed.load_state_dict(kept)
    again = method(resumed.parameters(), lr=0.7)
    again.load_state_dict(state)
    train(resumed, again, batches[3:])
    assert weights(resumed) == weights(model)


@members
def test_the_loss_falls(method):
    model, batches = setting()
    first = model(batches[0]).square().mean()
    train(model, method(model.parameters(), lr=0.05), batches[:1].expand(20, -1, -1))
    assert model(batches[0]).square().mean() < first / 2


@members
def test_takes_groups_and_names(method):
    model, batches = setting()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    before = weights(model)
    train(model, method(groups, lr=0.05), batches)
    assert weights(model)[:2] == before[:2]
    assert weights(model)[2:] != before[2:]
    assert method(model.named_parameters()).param_groups[0]["param_names"][0] == "0.weight"


@names
def test_made_from_words_as_from_python(name):
    (one, batches), (two, _) = setting(), setting()
    train(one, OPTIMIZERS.make(name, one.parameters(), lr="5e-2", betas=[0.8, 0.9]), batches)
    options = {"base_optimizer": AdamW} if issubclass(OPTIMIZERS[name], FlatOptimizer) else {}
    train(two, OPTIMIZERS[name](two.parameters(), lr=0.05, betas=(0.8, 0.9), **options), batches)
    assert weights(one) == weights(two)


@names
def test_every_member_says_what_it_is(name):
    assert OPTIMIZERS.summary(name).endswith(".")
    assert not {"params", "base_optimizer"} & set(OPTIMIZERS.options(name))


@pytest.mark.parametrize(("ours", "torchs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_fused_is_torchs_fused(ours, torchs):
    (one, batches), (two, _) = setting(), setting()
    mine, reference = ours(one.parameters()), torchs(two.parameters(), fused=True)
    train(one, mine, batches)
    train(two, reference, batches)
    assert weights(one) == weights(two)
    assert mine.defaults["weight_decay"] == reference.defaults["weight_decay"] == (0.01 if ours is AdamW else 0)


@pytest.mark.parametrize("member", [Adam, AdamW])
@pytest.mark.parametrize(
    ("options", "dtype"),
    [({"fused": False}, torch.float32), ({"foreach": True}, torch.float32), ({}, torch.complex64)],
)
def test_not_fused_where_it_cannot_be(member, options, dtype):
    w = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = member([w], **options)
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert not optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("member", [Adam, AdamW])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fused_for_every_float(member, dtype):
    w = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = member([w], lr=0.1, weight_decay=0.0)
    optimizer.add_param_group({"params": nn.Parameter(torch.ones(2))})
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    assert w[0].item() == pytest.approx(0.9, rel=1e-2)


@pytest.mark.parametrize("base", ["SGD", "adamw", "RMSprop", "muon", "nadam", "Adafactor"])
def test_any_base_by_name(base):
    optimizer = OPTIMIZERS.make("sam", [nn.Parameter(torch.ones(2, 2))], base=base, lr=0.1)
    assert isinstance(optimizer, FlatOptimizer)
    assert type(optimizer.base).__name__.lower() == base.lower()
    OPTIMIZERS.read({"name": "sam", "base": base, "lr": 0.1})


def test_the_default_base_is_fused():
    optimizer = OPTIMIZERS.make("sam", [nn.Parameter(torch.ones(2))], rho=0.02)
    assert type(optimizer.base) is AdamW
    assert optimizer.param_groups[0]["rho"] == 0.02


def test_options_of_the_method_and_of_its_base():
    model, _ = setting()
    optimizer = OPTIMIZERS.make(
        "sam", model.named_parameters(), rho="1e-2", p="inf", exclude=["bias"], momentum=0.9, base="sgd"
    )
    assert isinstance(optimizer, SAM)
    assert (optimizer.p, optimizer.param_groups[0]["rho"]) == (math.inf, 0.01)
    assert optimizer.base.defaults["momentum"] == 0.9


BAD = {
    "unknown member": ("sma", {}, "no optimizer is called 'sma'. Did you mean 'sam'?"),
    "unknown option": ("adamw", {"weightdecay": 0.1}, "option of optimizer 'adamw' is called 'weightdecay'"),
    "nearest own": ("sam", {"roh": 0.1}, "Did you mean 'rho'?"),
    "nearest of the base": ("sam", {"base": "sgd", "momentun": 0.9}, "Did you mean 'momentum'?"),
    "option of another base": ("sam", {"base": "sgd", "betas": [0.9, 0.99]}, "is called 'betas'"),
    "rho without a ball": ("adamw", {"rho": 0.1}, "is called 'rho'"),
    "base without a ball": ("adam", {"base": "sgd"}, "is called 'base'"),
    "internal": ("sam", {"base_optimizer": "sgd"}, "is called 'base_optimizer'"),
    "unknown base": ("sam", {"base": "adanw"}, "no base optimizer is called 'adanw'. Did you mean 'adamw'?"),
    "lbfgs": ("sam", {"base": "LBFGS"}, "LBFGS cannot be the base of a flat optimizer: it takes many gradients"),
    "sparseadam": ("sam", {"base": "sparseadam"}, "it needs sparse gradients"),
    "adadelta": ("sam", {"base": "adadelta"}, "it has an option rho of its own"),
    "negative rho": ("sam", {"rho": -0.1}, "rho is the radius of the perturbation, a number >= 0, got -0.1"),
    "nan rho": ("sam", {"rho": math.nan}, "rho is the radius of the perturbation, a number >= 0"),
    "lr 0": ("adam", {"lr": 0}, "lr is a number > 0, got 0"),
    "lr nan": ("adam", {"lr": math.nan}, "lr is a number > 0, got nan"),
    "lr infinite": ("adam", {"lr": "inf"}, "lr is a number > 0"),
    "lr a word": ("sam", {"lr": "fast"}, "lr is a number > 0, got 'fast'"),
    "lr a truth": ("sam", {"lr": True}, "lr is a number > 0, got True"),
    "lr missing": ("sam", {"lr": None}, "lr is a number > 0, got None"),
    "negative decay": ("adamw", {"weight_decay": -1}, "weight_decay is a number >= 0, got -1"),
    "p below 1": ("sam", {"p": 0.5}, "p is the norm of SAM's ball, a number >= 1, got 0.5"),
    "betas": ("sam", {"betas": [0.9, 1.5]}, "optimizer 'sam': Invalid beta parameter"),
    "one beta": ("adam", {"betas": 0.9}, "betas is a list of 2 numbers"),
    "momentum": ("sam", {"base": "sgd", "momentum": -1}, "Invalid momentum value"),
    "exclude": ("sam", {"exclude": {"a": 1}}, "exclude is a list"),
    "exclude a number": ("sam", {"exclude": [3]}, "exclude is a list"),
}


@pytest.mark.parametrize(("name", "options", "text"), BAD.values(), ids=BAD.keys())
def test_bad_options_are_one_line(name, options, text):
    model, _ = setting()
    for attempt in (
        lambda: OPTIMIZERS.read({"name": name, **options}),
        lambda: OPTIMIZERS.make(name, model.parameters(), **options),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, UnknownName) == ("is called" in text or "Did you mean" in text)


def test_muon_says_that_it_takes_matrices_only():
    with pytest.raises(InputError, match="optimizer 'sam': Muon only supports 2D"):
        OPTIMIZERS.make("sam", [nn.Parameter(torch.ones(3))], base="muon")


def test_good_options_pass_without_a_model():
    OPTIMIZERS.read({"name": "adamw", "lr": "3e-5", "betas": [0.9, 0.98], "weight_decay": 0})
    OPTIMIZERS.read(
        {"name": "sam", "rho": 0, "p": "inf", "exclude": ["*LayerNorm*", "bias"], "base": "AdamW", "eps": 1e-6}
    )
    OPTIMIZERS.read({"name": "sam"})
