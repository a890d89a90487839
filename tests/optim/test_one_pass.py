"""Methods that take one pass at weights displaced by what is remembered: MSAM, S2-SAM, extrapolation."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from tests.support.optimizers import bits, problem
from tests.support.quadratic import CURVATURE, LR, START, Quadratic, close, shifts
from trainflat.core.errors import InputError
from trainflat.optim import MSAM, OPTIMIZERS, S2SAM, ExtrapolatedGradient

MOMENTUM = 0.9
STEPS = 6


def counting(closure):
    calls = []

    def counted():
        calls.append(1)
        return closure()

    return counted, calls


def test_msam_over_sgd_on_a_quadratic():
    q, noise = Quadratic(), shifts(STEPS)
    optimizer = MSAM(q.params, SGD, rho=0.3, lr=LR, momentum=MOMENTUM)
    w, m = q.w, torch.zeros_like(START)
    for step in range(STEPS):
        q.shift = noise[step]
        e = -0.3 * m / m.norm() if step else torch.zeros_like(w)
        m = MOMENTUM * m + q.gradient(w + e)
        w = w - LR * m
        optimizer.step(q.closure)
        close(q.w, w)
        close(optimizer.last_norm.double(), e.norm())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_msam_takes_the_published_steps_but_for_what_coupled_decay_is_of(decay):
    """The published loop leaves the weights displaced between steps, and decays them where they stand."""
    q, noise = Quadratic(), shifts(STEPS)
    optimizer = MSAM(q.params, SGD, rho=0.3, lr=LR, momentum=MOMENTUM, weight_decay=decay)
    displaced, m, e = q.w, torch.zeros_like(START), torch.zeros_like(START)
    for step in range(STEPS):
        q.shift = noise[step]
        decayed = displaced - e  # ours; published: displaced
        g = q.gradient(displaced) + decay * decayed
        w, m = displaced - e - LR * (MOMENTUM * m + g), MOMENTUM * m + g
        e = -0.3 * m / m.norm()
        displaced = w + e
        optimizer.step(q.closure)
        close(q.w, w)


def test_msam_over_adamw_follows_the_first_mean():
    q, noise = Quadratic(), shifts(STEPS)
    optimizer = MSAM(q.params, AdamW, rho=3.0, lr=LR, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    w, m, v = q.w, torch.zeros_like(START), torch.zeros_like(START)
    for step in range(1, STEPS + 1):
        q.shift = noise[step - 1]
        g = q.gradient(w - 3.0 * m / m.norm() if step > 1 else w)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        w = w - LR * 0.1 * w - LR * (m / (1 - 0.9**step)) / ((v / (1 - 0.99**step)).sqrt() + 1e-8)
        optimizer.step(q.closure)
        close(q.w, w)


@pytest.mark.parametrize("base", ["sgd", "rmsprop", "adagrad", "adafactor", "asgd", "rprop"])
def test_msam_needs_momentum(base):
    for attempt in (
        lambda: OPTIMIZERS.read({"name": "msam", "base": base, "lr": 0.1}),
        lambda: OPTIMIZERS.read({"name": "extrapolated", "base": base, "lr": 0.1, "direction": "momentum"}),
    ):
        with pytest.raises(InputError, match=rf"goes along the momentum of its base optimizer, and (?i:{base}) has"):
            attempt()
    OPTIMIZERS.read({"name": "extrapolated", "base": base, "lr": 0.1, "direction": "previous"})


@pytest.mark.parametrize(
    "base", ["adamw", "adam", "nadam", "radam", "adamax", "muon", ("sgd", 0.9), ("rmsprop", 0.5)], ids=str
)
def test_msam_finds_the_momentum_of_every_base_that_has_one(base):
    name, momentum = (base, {}) if isinstance(base, str) else (base[0], {"momentum": base[1]})
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = OPTIMIZERS.make("msam", [w], base=name, lr=0.01, rho=0.5, **momentum)
    for expected in (0.0, 0.5):
        w.grad = None
        with optimizer.perturbed():
            (w * torch.tensor([[0.6, 0.8]])).sum().backward()
        assert optimizer.last_norm.item() == pytest.approx(expected)
        optimizer.step()


def test_msam_checks_groups_that_come_later():
    optimizer = MSAM([nn.Parameter(torch.ones(2))], SGD, lr=0.1, momentum=0.9)
    with pytest.raises(InputError, match="SGD has none"):
        optimizer.add_param_group({"params": nn.Parameter(torch.ones(2)), "momentum": 0.0})


def test_s2sam_on_a_quadratic():
    q, noise = Quadratic(), shifts(STEPS)
    optimizer = S2SAM(q.params, SGD, rho=0.3, lr=LR, momentum=MOMENTUM)
    w, g, m = q.w, None, torch.zeros_like(START)
    for step in range(STEPS):
        q.shift = noise[step]
        g = q.gradient(w if g is None else w + 0.3 * g / g.norm())
        m = MOMENTUM * m + g
        w = w - LR * m
        optimizer.step(q.closure)
        close(q.w, w)


@pytest.mark.parametrize("direction", ["gradient", "previous"])
def test_extrapolation_on_a_quadratic(direction):
    q, noise = Quadratic(), shifts(STEPS)
    groups = [{"params": [q.params[0]]}, {"params": [q.params[1]], "lr": 3 * LR}]
    optimizer = ExtrapolatedGradient(groups, SGD, 0.7, direction=direction, lr=LR)
    rates = LR * torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64)
    w, previous = q.w, torch.zeros_like(START)
    for step in range(STEPS):
        q.shift = noise[step]
        d = q.gradient(w) if direction == "gradient" else previous
        previous = q.gradient(w - 0.7 * rates * d)
        w = w - rates * previous
        optimizer.step(q.closure)
        close(q.w, w)
        close(optimizer.last_norm, (0.7 * rates * d).norm())


def test_extrapolation_along_the_momentum_is_nesterovs_method():
    q, noise = Quadratic(), shifts(STEPS)
    optimizer = ExtrapolatedGradient(q.params, SGD, MOMENTUM, direction="momentum", lr=LR, momentum=MOMENTUM)
    w, velocity = q.w, torch.zeros_like(START)
    for step in range(STEPS):
        q.shift = noise[step]
        velocity = MOMENTUM * velocity - LR * q.gradient(w + MOMENTUM * velocity)
        w = w + velocity
        optimizer.step(q.closure)
        close(q.w, w)


def test_extrapolation_follows_the_schedule_of_the_learning_rate():
    q = Quadratic()
    optimizer = ExtrapolatedGradient(q.params, SGD, 2.0, lr=LR)
    optimizer.param_groups[0]["lr"] = LR / 4
    optimizer.step(q.closure)
    close(q.w, START - LR / 4 * CURVATURE * (START - LR / 2 * CURVATURE * START))


@pytest.mark.parametrize(
    ("make", "passes"),
    [
        (lambda params: MSAM(params, AdamW, rho=0.0, lr=LR), 1),
        (lambda params: S2SAM(params, AdamW, rho=0.0, lr=LR), 1),
        (lambda params: ExtrapolatedGradient(params, AdamW, 0.0, lr=LR), 2),
        (lambda params: ExtrapolatedGradient(params, AdamW, 0, direction="previous", lr=LR), 1),
        (lambda params: ExtrapolatedGradient(params, AdamW, 0.0, direction="momentum", lr=LR), 1),
    ],
    ids=["msam", "s2sam", "gradient", "previous", "momentum"],
)
def test_without_displacement_it_is_the_base_bit_for_bit(make, passes):
    (one, first), (two, second) = problem(), problem()
    flat, base = make(one.parameters()), AdamW(two.parameters(), lr=LR)
    closure, calls = counting(first)
    for _ in range(4):
        flat.step(closure)
        second()
        base.step()
    assert bits(one) == bits(two)
    assert len(calls) == 4 * passes


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("msam", {}, 1),
        ("s2sam", {}, 1),
        ("extrapolated", {}, 2),
        ("extrapolated", {"direction": "previous"}, 1),
        ("extrapolated", {"direction": "momentum"}, 1),
        ("cram", {}, 2),
        ("entropy-sgd", {}, 1),
        ("label-noise", {}, 1),
        ("l1", {}, 1),
    ],
)
def test_passes_are_those_that_are_announced(name, options, passes):
    model, closure = problem()
    optimizer = OPTIMIZERS.make(name, model.parameters(), lr=0.01, **options)
    counted, calls = counting(closure)
    for _ in range(7):
        optimizer.step(counted)
    assert len(calls) == 7 * passes == 7 * OPTIMIZERS.read({"name": name, **options}).average_passes


@pytest.mark.parametrize("direction", ["previous", "momentum"])
def test_remembered_directions_survive_a_resume(direction):
    q, noise = Quadratic(), shifts(8)

    def made(params):
        return ExtrapolatedGradient(params, SGD, 2.0, direction=direction, lr=LR, momentum=MOMENTUM)

    def steps(q, optimizer, part):
        for shift in part:
            q.shift = shift
            optimizer.step(q.closure)

    optimizer = made(q.params)
    steps(q, optimizer, noise[:4])
    again = Quadratic()
    for p, other in zip(again.params, q.params, strict=True):
        p.data.copy_(other.data)
    resumed = made(again.params)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch shares what it loads
    steps(q, optimizer, noise[4:])
    steps(again, resumed, noise[4:])
    assert torch.equal(q.w, again.w)


@pytest.mark.parametrize(
    "options", [{"direction": "previous"}, {"direction": "momentum"}, {"extrapolation": 5.0}], ids=str
)
def test_a_loss_scale_does_not_lengthen_the_extrapolation(options):
    ends = []
    for scale in (1.0, 2.0**12):
        q = Quadratic(scale)
        optimizer = ExtrapolatedGradient(q.params, SGD, lr=LR, momentum=MOMENTUM, **options)
        optimizer.loss_scale = scale
        for _ in range(4):
            if optimizer.first_pass:
                q.closure()
            with optimizer.perturbed():
                q.closure()
            optimizer.finish_gradients()
            for p in q.params:
                p.grad /= scale
            optimizer.step()
        ends.append(q.w)
    assert torch.equal(*ends)


def test_a_parameter_that_a_batch_does_not_use_has_no_previous_gradient():
    used, sometimes = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = S2SAM([used, sometimes], SGD, rho=1.0, lr=0.1)
    for both in (True, False):
        optimizer.zero_grad()
        with optimizer.perturbed():
            (used + (sometimes if both else 0)).sum().backward()
        optimizer.step()
    with optimizer.perturbed():
        assert sometimes.item() == pytest.approx(0.9)
        assert used.item() == pytest.approx(0.8 + 1.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"extrapolation": -1}, "extrapolation is a multiple of the learning rate, a number >= 0, got -1"),
        ({"extrapolation": "far"}, "extrapolation is a multiple of the learning rate, a number >= 0, got 'far'"),
        ({"direction": "up"}, "no direction is called 'up'. Known: gradient, momentum, previous."),
    ],
    ids=["negative", "word", "direction"],
)
def test_values_that_do_not_fit(options, text):
    with pytest.raises(InputError) as caught:
        OPTIMIZERS.read({"name": "extrapolated", **options})
    assert text in str(caught.value)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    for member in (S2SAM, ExtrapolatedGradient):
        optimizer = member(table.parameters(), SGD, lr=0.1)
        with pytest.raises(InputError, match="needs dense gradients"):
            optimizer.step(lambda: table(torch.tensor([1, 2])).sum().backward())
