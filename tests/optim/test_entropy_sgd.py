"""Entropy-SGD against Algorithm 1 of the paper, written with walk and mean in absolute coordinates."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from tests.support.optimizers import bits, problem
from tests.support.quadratic import START, Quadratic, close, shifts
from trainflat.core.errors import InputError
from trainflat.core.rng import generator
from trainflat.optim import OPTIMIZERS, EntropySGD
from trainflat.pruning import Masks

OPTIONS = {"inner_steps": 3, "inner_lr": 0.05, "gamma": 0.4, "alpha": 0.75}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_algorithm_on_a_quadratic(momentum):
    q, batches = Quadratic(), shifts(12)
    optimizer = EntropySGD(q.params, SGD, lr=0.8, momentum=momentum, noise=0.0, **OPTIONS)
    w, velocity = q.w, torch.zeros_like(START)
    walk = mean = w
    for step, shift in enumerate(batches, start=1):
        q.shift = shift
        walk = walk - 0.05 * (q.gradient(walk) - 0.4 * (w - walk))
        mean = 0.25 * mean + 0.75 * walk
        if step % 3 == 0:
            velocity = momentum * velocity + 0.4 * (w - mean)
            w = w - 0.8 * velocity
            walk = mean = w
        optimizer.step(q.closure)
        close(q.w, w)


def test_options_that_make_it_the_authors_code():
    """Their `entropyoptim.lua`, in its own variables and without momentum: three steps of three, with noise."""
    rate, pull, noise, lr, kept = 0.05, 0.4, 0.3, 0.8, 0.75
    q, batches = Quadratic(), shifts(9)
    alike = {"inner_steps": 3, "inner_lr": rate, "gamma": pull, "noise": math.sqrt(2) * noise, "alpha": 1 - kept}
    optimizer = EntropySGD(q.params, SGD, lr=lr / pull, seed=5, **alike)
    x = q.w
    for begin in range(0, 9, 3):
        lx, lmx = x.clone(), x.clone()
        for step in range(begin, begin + 3):
            q.shift = batches[step]
            draws = [torch.randn(2, generator=generator("cpu", 5, step, k), dtype=torch.float64) for k in range(2)]
            dx = q.gradient(lx) - pull * (x - lx) - noise / math.sqrt(0.5 * rate) * torch.cat(draws)
            lx = lx - rate * dx
            lmx = kept * lmx + (1 - kept) * lx
            optimizer.step(q.closure)
        x = x - lr * (x - lmx)
        close(q.w, x)


def test_the_pass_stands_on_the_walk_and_the_model_on_the_anchor():
    q = Quadratic()
    optimizer = EntropySGD(q.params, SGD, lr=1.0, noise=0.0, **OPTIONS)
    optimizer.step(q.closure)
    assert torch.equal(q.w, START)
    with optimizer.perturbed():
        close(q.w, START - 0.05 * q.gradient(START))
        close(optimizer.last_norm, (0.05 * q.gradient(START)).norm())
    assert torch.equal(q.w, START)


def test_one_strong_step_without_noise_is_gradient_descent():
    """L = alpha = 1: w - eta gamma (w - w') with w' = w - eta' g."""
    one, two = problem()[0].double(), problem()[0].double()
    flat = EntropySGD(one.parameters(), SGD, 1, inner_lr=0.05, gamma=0.5, noise=0.0, alpha=1.0, lr=2.0)
    base, inputs = SGD(two.parameters(), lr=0.05), torch.randn(12, 4, dtype=torch.float64)
    for _ in range(4):
        for model, optimizer in ((one, flat), (two, base)):

            def closure(model=model):
                model.zero_grad()
                loss = model(inputs).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
    for p, r in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, r, rtol=0, atol=1e-14)


def test_noise_has_its_size_and_is_known_from_seed_and_step():
    def walked(seed, steps=1):
        w = nn.Parameter(torch.zeros(20_000))
        options = {"inner_steps": 9, "inner_lr": 0.04, "noise": 0.5, "gamma": 1.0}
        optimizer = EntropySGD([w], SGD, lr=0.1, seed=seed, **options)
        for _ in range(steps):
            optimizer.step(lambda: (w * 0).sum().backward())
        return optimizer.remembered("walk", [w])[0]

    first = walked(0)
    deviation = math.sqrt(0.04) * 0.5
    assert first.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(2 * 20_000))
    assert abs(first.mean().item()) < 4 * deviation / math.sqrt(20_000)
    assert torch.equal(first, walked(0))
    assert not torch.equal(first, walked(1))
    second = walked(0, steps=2) - (1 - 0.04) * first  # the newest draw alone
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / math.sqrt(20_000)


def test_parameters_of_one_shape_draw_apart():
    pair = [nn.Parameter(torch.zeros(50)) for _ in range(2)]
    optimizer = EntropySGD(pair, SGD, noise=1.0, lr=0.1)
    optimizer.step(lambda: (pair[0] + pair[1]).sum().backward())
    assert not torch.equal(*optimizer.remembered("walk", pair))


def test_pruned_weights_get_no_noise():
    model, passes = problem()
    masks = Masks({"0.weight": torch.arange(24).reshape(6, 4) % 2 == 0})
    masks.apply_(model)
    optimizer = EntropySGD(model.parameters(), AdamW, inner_steps=4, noise=1.0, lr=0.01)
    with masks.hold(model).attach(optimizer):
        for _ in range(20):
            with optimizer.perturbed():
                masks.check(model)
                passes()
            optimizer.step()
            masks.check(model)
            for name in ("walk", "mean"):
                kept = optimizer.remembered(name, [model[0].weight])[0]
                assert not kept[~masks["0.weight"]].any()


@pytest.mark.parametrize("cut", [3, 4, 5])
def test_resuming_within_a_walk_leads_to_the_same_bits(cut):
    model, passes = problem()
    optimizer = EntropySGD(model.parameters(), AdamW, inner_steps=3, noise=0.1, lr=0.01)
    for _ in range(cut):
        optimizer.step(passes)
    other, others_passes = problem()
    other.load_state_dict(model.state_dict())
    resumed = EntropySGD(other.parameters(), AdamW, inner_steps=3, noise=0.1, lr=0.5)
    saved = copy.deepcopy(optimizer.state_dict())
    assert {"flat/walk", "flat/mean"} <= set(saved["state"][0])
    resumed.load_state_dict(saved)
    for _ in range(cut):
        optimizer.step(passes)
        resumed.step(others_passes)
    assert bits(model) == bits(other)


def test_a_schedule_counts_steps_of_the_walk_and_reaches_the_outer_step():
    q = Quadratic()
    optimizer = EntropySGD(q.params, SGD, lr=1.0, noise=0.0, **OPTIONS)
    scheduler = LambdaLR(optimizer, lambda step: float(step != 2))  # 0 at the step that moves w
    for _ in range(3):
        optimizer.step(q.closure)
        scheduler.step()
    assert torch.equal(q.w, START)


def test_a_parameter_that_the_last_batch_does_not_use_still_follows_its_walk():
    used, sometimes, never = (nn.Parameter(torch.ones(1)) for _ in range(3))
    options = {"inner_steps": 2, "inner_lr": 0.5, "gamma": 1.0, "noise": 0.0, "alpha": 0.5}
    optimizer = EntropySGD([used, sometimes, never], SGD, lr=1.0, weight_decay=0.1, **options)
    for both in (True, False):
        optimizer.zero_grad()
        with optimizer.perturbed():
            (used + (sometimes if both else 0)).sum().backward()
        optimizer.step()
    assert sometimes.item() == pytest.approx(1 - 0.375 - 0.1)  # the walk stayed at 1/2, its mean was 1/4, then 3/8
    assert never.item() == 1.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inner_steps": 0}, "inner_steps is a whole number >= 1, got 0"),
        ({"inner_steps": 2.5}, "inner_steps is a whole number >= 1, got 2.5"),
        ({"inner_lr": 0}, "inner_lr is a number > 0, got 0"),
        ({"gamma": -1}, "gamma is a number > 0, got -1"),
        ({"noise": "loud"}, "noise is a number >= 0, got 'loud'"),
        ({"alpha": 0}, "alpha is the weight of the newest point, in (0, 1], got 0"),
        ({"seed": -1}, "seed is a whole number >= 0, got -1"),
        ({"exclude": ["bias"]}, "no option of optimizer 'entropy-sgd' is called 'exclude'"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(options, text):
    with pytest.raises(InputError) as caught:
        OPTIMIZERS.read({"name": "entropy-sgd", **options})
    assert text in str(caught.value)
