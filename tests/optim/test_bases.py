"""What a flat optimizer is given in Python: a class as its base, a radius, each parameter once."""

import functools

import pytest
import torch
from torch import nn

from trainflat.core.errors import InputError
from trainflat.optim import GSAM, OPTIMIZERS, SAM, FlatOptimizer

FLAT = [member for member in OPTIMIZERS.values() if issubclass(member, FlatOptimizer)]
every = pytest.mark.parametrize("method", FLAT, ids=lambda member: member.__name__)


def weight() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2))


def refusal(method, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        method(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@every
@pytest.mark.parametrize(
    ("base", "text"),
    [
        (torch.optim.LBFGS, "LBFGS cannot be the base of a flat optimizer: it takes many gradients in one step."),
        (torch.optim.SparseAdam, "SparseAdam cannot be the base of a flat optimizer: it needs sparse gradients."),
        (torch.optim.Adadelta, "Adadelta cannot be the base of a flat optimizer: it has an option rho of its own."),
        (SAM, "SAM has an option rho of its own"),
        ("adamw", "a class such as torch.optim.AdamW, got 'adamw'"),
        (None, "a class such as torch.optim.AdamW, got None"),
        (torch.optim.AdamW([weight()]), "got a finished AdamW. Pass the class, its options by name."),
    ],
)
def test_bases_that_cannot_be(method, base, text):
    assert text in refusal(method, [weight()], base)


def test_what_makes_a_base_may_be_any_callable():
    made = SAM([weight()], functools.partial(torch.optim.SGD, lr=0.5))
    assert made.param_groups[0]["lr"] == 0.5
    assert "an option rho" in refusal(SAM, [weight()], functools.partial(torch.optim.Adadelta, lr=0.5))


@every
def test_a_parameter_given_twice(method):
    one, other = weight(), weight()
    twice = "params holds a parameter more than once"
    assert twice in refusal(method, [one, other, one])
    assert twice in refusal(method, [("a", one), ("b", other), ("a", one)])
    assert twice in refusal(method, [{"params": [one]}, {"params": [other, one]}])
    optimizer = method([one])
    for group in ([one], [other, other]):
        assert twice in refusal(optimizer.add_param_group, {"params": group})
    assert [group["params"] for group in optimizer.param_groups] == [[one]]


@pytest.mark.parametrize("rho", [True, False, "0.05", None, -0.1, float("inf"), float("nan")])
@pytest.mark.parametrize("method", [SAM, GSAM])
def test_radii_that_cannot_be(method, rho):
    text = f"rho is the radius of the perturbation, a number >= 0, got {rho!r}."
    assert refusal(method, [weight()], rho=rho) == text
    assert refusal(method, [{"params": [weight()], "rho": rho}]) == text


def test_a_truth_value_is_no_norm():
    assert "p is the norm of SAM's ball, a number >= 1, got True." in refusal(SAM, [weight()], p=True)
