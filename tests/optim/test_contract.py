"""What every flat optimizer keeps: the way back, masks, copies, checkpoints, frozen weights, radii, loss scales."""

import copy
import io
import math
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tests.support.optimizer_family import FLAT, options, setting, train, weights
from trainflat.core.errors import UnknownName
from trainflat.optim import OPTIMIZERS
from trainflat.pruning import Masks

flat = pytest.mark.parametrize("name", FLAT)


def flat_optimizer(name, params, **changed):
    return OPTIMIZERS.make(name, params, **{"lr": 0.05, **options(name), **changed})


@flat
def test_no_option_is_swallowed(name):
    with pytest.raises(UnknownName) as caught:
        OPTIMIZERS.read({"name": name, "lr": 0.1, "amplitude": 2})
    assert f"no option of optimizer '{name}' is called 'amplitude'." in str(caught.value)
    assert "\n" not in str(caught.value)
    OPTIMIZERS.read({"name": name, **options(name)})
    assert 1 <= OPTIMIZERS.read({"name": name, **options(name)}).average_passes <= 2


@flat
def test_weights_come_back_bit_for_bit_also_after_an_exception(name):
    model, batches = setting()
    optimizer = flat_optimizer(name, model.parameters())
    for step, batch in enumerate(batches):
        before = weights(model)
        model(batch).square().mean().backward()
        with pytest.raises(ZeroDivisionError) if step % 2 else nullcontext(), optimizer.perturbed():
            if step % 2:
                raise ZeroDivisionError
        assert weights(model) == before
        train(model, optimizer, [batch])


@flat
def test_a_pruned_weight_is_neither_displaced_nor_revived(name):
    model, batches = setting()
    masks = Masks({"0.weight": torch.rand(6, 4) < 0.5, "2.weight": torch.rand(1, 6) < 0.5})
    optimizer = flat_optimizer(name, model.named_parameters())
    train(model, optimizer, batches[:3])  # something to remember, pruned weights included
    masks.apply_(model)
    with masks.hold(model).attach(optimizer):
        for batch in batches:

            def closure(batch=batch):
                masks.check(model)  # at every point where a gradient is taken
                optimizer.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
            masks.check(model)


@flat
def test_masks_that_are_younger_than_what_is_remembered_hold(name):
    """As the Trainer holds them, which clears nothing."""
    model, batches = setting()
    masks = Masks({"0.weight": torch.rand(6, 4) < 0.5, "2.weight": torch.rand(1, 6) < 0.5})
    optimizer = flat_optimizer(name, model.named_parameters())
    train(model, optimizer, batches[:3])
    masks.apply_(model)
    optimizer.held = held = masks.hold(model)
    for batch in batches:

        def one_pass(batch=batch):
            masks.check(model)
            optimizer.zero_grad()
            model(batch).square().mean().backward()

        if optimizer.first_pass:
            one_pass()
        if optimizer.second_pass:
            with optimizer.perturbed():
                one_pass()
        optimizer.finish_gradients()
        for n, mask in masks.items():  # before they are clipped together with the others
            assert not model.get_parameter(n).grad[~mask].any()
        optimizer.step()
        held.mask_weights()


@flat
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_goes_its_own_way_and_the_same(name, how):
    model, batches = setting()
    optimizer = flat_optimizer(name, model.parameters())
    train(model, optimizer, batches[:3])
    pair = (model, optimizer)
    twin, copied = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    before = weights(twin)
    train(model, optimizer, batches[3:])
    assert weights(twin) == before
    train(twin, copied, batches[3:])
    assert weights(twin) == weights(model)


@flat
def test_state_dicts_hold_nothing_that_must_be_unpickled(name):
    model, batches = setting()
    optimizer = flat_optimizer(name, model.parameters())
    train(model, optimizer, batches[:3])
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    twin, again = copy.deepcopy((model, flat_optimizer(name, model.parameters())))
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.steps_taken == 3
    train(twin, again, batches[3:])
    train(model, optimizer, batches[3:])
    assert weights(twin) == weights(model)


@flat
def test_frozen_and_unused_parameters_stay(name):
    model, batches = setting()
    model[0].bias.requires_grad_(False)
    unused = nn.Parameter(torch.ones(3))
    before, optimizer = weights(model), flat_optimizer(name, [*model.parameters(), unused], weight_decay=0.0)
    train(model, optimizer, batches)
    assert weights(model)[1] == before[1]
    assert weights(model)[0] != before[0]
    if name != "l1":  # the penalty is a gradient
        assert torch.equal(unused, torch.ones(3))


@pytest.mark.parametrize("name", [name for name in FLAT if "rho" in OPTIMIZERS.options(name)])
def test_a_group_has_its_own_radius(name):
    model, batches = setting()
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[2].parameters()}]
    optimizer = flat_optimizer(name, groups, rho=0.3)
    train(model, optimizer, batches[:4])
    before = weights(model)
    model(batches[4]).square().mean().backward()
    with optimizer.perturbed():
        assert weights(model)[:2] == before[:2]
        assert weights(model)[2:] != before[2:]
    assert optimizer.last_norm > 0


@flat
def test_a_loss_scale_that_comes_and_goes_changes_no_step(name):
    ends = []
    for scales in ([1.0] * 6, [1.0, 1024.0, 1024.0, 2.0**16, 8.0, 1.0]):
        model, batches = setting()
        model, batches = model.double(), batches.double()
        radius = {"rho": 0.3} if "rho" in OPTIMIZERS.options(name) else {}
        optimizer = flat_optimizer(name, model.parameters(), **radius)
        for scale, batch in zip(scales, batches, strict=True):
            optimizer.loss_scale = scale
            _scaled_step(model, optimizer, batch, scale)
        ends.append(list(model.parameters()))
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def _scaled_step(model, optimizer, batch, scale) -> None:
    def one_pass():
        optimizer.zero_grad()
        (model(batch).square().mean() * scale).backward()

    if optimizer.first_pass:
        one_pass()
    if optimizer.second_pass:
        with optimizer.perturbed():
            one_pass()
    optimizer.finish_gradients()
    for p in model.parameters():  # as a scaler does
        p.grad /= scale
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


@flat
def test_an_overflow_moves_and_teaches_nothing(name):
    """A scaler skips the step; what is remembered must not have seen the gradients."""
    (one, batches), (two, _) = setting(), setting()
    skipping, plain = flat_optimizer(name, one.parameters()), flat_optimizer(name, two.parameters())
    for batch in batches:
        _scaled_step(one, skipping, batch, 1.0)
        skipping.loss_scale = 1024.0
        _overflow(one, skipping, batch)
        skipping.loss_scale = 1.0
        _scaled_step(two, plain, batch, 1.0)
    assert weights(one) == weights(two)


def _overflow(model, optimizer, batch) -> None:
    def one_pass():
        optimizer.zero_grad()
        (model(batch).square().mean() * math.inf).backward()

    before = weights(model)
    if optimizer.first_pass:
        one_pass()
    if optimizer.second_pass:
        with optimizer.perturbed():
            assert not optimizer.first_pass or weights(model) == before
            one_pass()
    optimizer.finish_gradients()
    assert not all(p.grad.isfinite().all() for p in model.parameters())
    optimizer.zero_grad()
