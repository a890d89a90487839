"""Optimizers refuse what is not theirs: another's state, masks of another model, a displacement without gradient."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, Adam, AdamW, FlatOptimizer
from trainflat.pruning import Masks

FLAT = [name for name in OPTIMIZERS if issubclass(OPTIMIZERS[name], FlatOptimizer)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def stepped(name: str, **options: Any) -> tuple[nn.Module, Any]:
    model = network()
    optimizer = OPTIMIZERS.make(name, model.named_parameters(), lr=1e-2, **options)
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.step(lambda: loss_of(model, optimizer))
    return model, optimizer


def loss_of(model: nn.Module, optimizer: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = model(torch.ones(5, 3)).square().mean()
    loss.backward()
    return loss


@cache
def kept(name: str) -> Any:
    """One that has stepped, for tests that leave it as it is."""
    return stepped(name)[1]


@pytest.mark.parametrize("saved", OPTIMIZERS)
def test_every_optimizer_refuses_every_other_one_s_state(saved: str) -> None:
    state = stepped(saved)[1].state_dict()
    for name in OPTIMIZERS:
        basis = saved == "adamw" and name in FLAT  # the state of the base alone will do
        if name == saved or basis:
            stepped(name)[1].load_state_dict(copy.deepcopy(state))
            continue
        other = kept(name)
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(InputError, match=r"the state is of \w+( over \w+)?, and this optimizer is ") as error:
            other.load_state_dict(copy.deepcopy(state))
        assert "\n" not in str(error.value)
        assert str(other.state_dict()) == str(before)


def test_the_base_is_part_of_the_kind() -> None:
    state = stepped("sam", base="sgd", momentum=0.9)[1].state_dict()
    with pytest.raises(InputError, match="the state is of SAM over SGD, and this optimizer is SAM over AdamW"):
        stepped("sam")[1].load_state_dict(state)


@pytest.mark.parametrize(("ours", "torchs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_torch_s_state_is_taken_and_ours_is_taken_by_torch(ours: Any, torchs: Any) -> None:
    model = network()
    one, other = ours(model.parameters()), torchs(model.parameters())
    for optimizer in (one, other):
        optimizer.step(lambda optimizer=optimizer: loss_of(model, optimizer))
    one.load_state_dict(other.state_dict())
    other.load_state_dict(one.state_dict())
    one.step()
    other.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_of_another_model_are_refused(name: str) -> None:
    model, optimizer = stepped(name)
    other = network()
    held = Masks.ones(other).hold(other)
    with pytest.raises(InputError, match=r"trains none of 2 masked weights, such as 0\.weight.* Hold them on"):
        held.attach(optimizer)
    Masks.ones(model).hold(model).attach(optimizer).remove()


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("name", FLAT)
def test_a_displacement_without_a_gradient_is_an_error_and_one_of_a_gradient_of_0_is_not(
    name: str, to_none: bool
) -> None:
    model, optimizer = stepped(name)
    if not (optimizer.first_pass and optimizer.second_pass and optimizer.displaced()):
        pytest.skip("its displacement is made of no gradient at hand")
    loss_of(model, optimizer)
    optimizer.zero_grad(to_none)
    message = rf"{type(optimizer).__name__}\.perturbed\(\) was entered without a gradient"
    with pytest.raises(RuntimeError, match=message), optimizer.perturbed():
        pass
    optimizer.zero_grad(to_none)
    (0 * model(torch.ones(5, 3)).sum()).backward()
    with optimizer.perturbed():
        (0 * model(torch.ones(5, 3)).sum()).backward()
    optimizer.step()
