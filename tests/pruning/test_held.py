"""Held masks: zeros stay zero, and what survives goes its way as if the rest had never been there."""

import copy

import pytest
import torch
from torch import nn

from trainflat.optim import SAM
from trainflat.pruning import MagnitudePruner, Masks, RandomPruner

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)).double()


def batches(count=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(count)]


def loss_of(model, x):
    return (model(x) - x[:, :3].sin()).square().mean()


def backward(model, x):
    model.zero_grad()
    loss = loss_of(model, x)
    loss.backward()
    return loss


def masked_by_hand(model, masks):
    for name, p in model.named_parameters():
        if name in masks:
            p.grad[~masks[name]] = 0


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_survivors_go_as_with_gradients_masked_by_hand(make):
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    other, start = copy.deepcopy(model), copy.deepcopy(model)
    optimizer, by_hand = make(model.parameters()), make(other.parameters())
    with masks.hold(model).attach(optimizer):
        for x in batches():
            backward(model, x)
            optimizer.step()
            masks.check(model)
            backward(other, x)
            masked_by_hand(other, masks)
            by_hand.step()
    assert equal(model, other)
    moved = {name: p != q for (name, p), q in zip(model.named_parameters(), start.parameters(), strict=True)}
    assert all(torch.equal(m, masks[name]) if name in masks else m.any() for name, m in moved.items())


def test_the_two_calls_in_a_plain_loop():
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    attached, held = copy.deepcopy(model), masks.hold(model)
    optimizer, other = OPTIMIZERS["sgd"](model.parameters()), OPTIMIZERS["sgd"](attached.parameters())
    masks.hold(attached).attach(other)
    for x in batches():
        backward(model, x)
        held.mask_gradients()
        optimizer.step()
        held.mask_weights()
        backward(attached, x)
        other.step()
    assert equal(model, attached)


def test_zeros_stay_where_an_optimizer_mixes_entries():
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    other = copy.deepcopy(model)
    optimizer, by_hand = (torch.optim.Muon([m[0].weight, m[3].weight], lr=0.1) for m in (model, other))
    masks.hold(model).attach(optimizer)
    for x in batches():
        backward(model, x)
        optimizer.step()
        masks.check(model)
        backward(other, x)
        masked_by_hand(other, masks)
        by_hand.step()
        masks.apply_(other)
    assert equal(model, other)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_momentum_of_the_past_does_not_count(make):
    model = network()
    optimizer = make(model.parameters())
    for x in batches(3):
        backward(model, x)
        optimizer.step()
    kept = copy.deepcopy(optimizer.state_dict()["state"])
    masks = RandomPruner(model, sparsity=0.6).prune()
    masks.hold(model).attach(optimizer)
    for index, (name, p) in enumerate(model.named_parameters()):
        for key, value in optimizer.state[p].items():
            before = kept[index][key]
            if name in masks and value.shape == p.shape:
                before = before * masks[name]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(before))
    backward(model, batches()[0])
    optimizer.step()
    masks.check(model)
    for name, p in model.named_parameters():
        if name in masks:
            tensors = [v for v in optimizer.state[p].values() if torch.is_tensor(v) and v.shape == p.shape]
            assert not any(v[~masks[name]].any() for v in tensors)


@pytest.mark.parametrize("closure", ["argument", "keyword"])
def test_a_closure_makes_masked_gradients(closure):
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    other = copy.deepcopy(model)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    by_hand = torch.optim.LBFGS(other.parameters(), lr=0.5, max_iter=5)
    masks.hold(model).attach(optimizer)

    def masked(x):
        loss = backward(other, x)
        masked_by_hand(other, masks)
        return loss

    for x in batches(2):
        step = (lambda x=x: backward(model, x),)
        loss = optimizer.step(*step) if closure == "argument" else optimizer.step(closure=step[0])
        assert torch.equal(loss, by_hand.step(lambda x=x: masked(x)))
        masks.check(model)
    assert equal(model, other)


@pytest.mark.parametrize("closure", [False, True])
def test_sam_climbs_within_the_mask(closure):
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, momentum=0.9, weight_decay=0.1)
    attached, seen = masks.hold(model).attach(optimizer), []

    def watched(x):
        masks.check(model)  # also at the displaced weights
        seen.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
        return backward(model, x)

    for x in batches():
        if closure:
            optimizer.step(lambda x=x: watched(x))
        else:
            watched(x)
            with optimizer.perturbed():
                watched(x)
            optimizer.step()
        masks.check(model)
        # the whole radius is spent on what survives
        torch.testing.assert_close((seen[-1] - seen[-2]).norm().item(), 0.3)
        for name, p in model.named_parameters():
            if name in masks:
                assert not optimizer.state[p]["momentum_buffer"][~masks[name]].any()
    attached.remove()
    watched_again = batches()[0]
    optimizer.step(lambda: backward(model, watched_again))
    assert any((p[~masks[name]] != 0).any() for name, p in model.named_parameters() if name in masks)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, SAM])
def test_the_end_of_the_block_leaves_no_hooks(optimizer):
    model = network()
    optimizer = optimizer(model.parameters(), lr=0.1)
    with pytest.raises(KeyError), Masks.ones(model).hold(model).attach(optimizer):
        raise KeyError
    for one in {optimizer, getattr(optimizer, "base", optimizer)}:
        assert not one._optimizer_step_pre_hooks
        assert not one._optimizer_step_post_hooks
    assert getattr(optimizer, "held", None) is None


def test_parameters_without_gradients_and_frozen_ones():
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    held = masks.hold(model)
    held.mask_gradients()
    model[0].weight.requires_grad_(False)
    backward(model, batches()[0])
    held.mask_gradients()
    assert model[0].weight.grad is None
    assert not model[3].weight.grad[~masks["3.weight"]].any()


def test_masks_follow_the_model():
    model = network()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    held = masks.hold(model)
    model.float()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    held.mask_weights()
    assert torch.equal(model[0].weight != 0, masks["0.weight"])
    assert {factor.dtype for factor in held._factors} == {torch.float32}


def test_shared_weights_are_masked_under_either_name():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, layer)
    masks = Masks({"1.weight": torch.eye(4).bool()})
    masks.apply_(model)
    masks.hold(model).mask_weights()
    assert torch.equal(layer.weight != 0, torch.eye(4).bool())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_masks_attached_one_inside_the_other_leave_each_other_in_place(order):
    model = network()
    outer = MagnitudePruner(model, sparsity=0.4).select()
    inner = MagnitudePruner(model, sparsity=0.8).select()
    inner.apply_(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    held = [outer.hold(model), inner.hold(model)]
    attached = [one.attach(optimizer) for one in held]
    assert optimizer.held is held[1]
    first, last = order
    attached[first].remove()
    assert optimizer.held is held[last]
    stay = (outer, inner)[last]
    for x in batches(2):
        backward(model, x)
        with optimizer.perturbed():
            assert all(not p[~stay[n]].any() for n, p in model.named_parameters() if n in stay)
            backward(model, x)
        optimizer.step()
    assert all(not p[~stay[n]].any() for n, p in model.named_parameters() if n in stay)
    attached[last].remove()
    assert optimizer.held is None


def test_masks_that_were_set_by_hand_come_back():
    model = network()
    optimizer, masks = SAM(model.parameters()), Masks.ones(model)
    optimizer.held = mine = masks.hold(model)
    for _ in range(2):
        with masks.hold(model).attach(optimizer), masks.hold(model).attach(optimizer):
            assert optimizer.held is not mine
        assert optimizer.held is mine
