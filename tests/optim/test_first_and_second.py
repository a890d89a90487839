"""Methods that take a first and a second pass, step by step as their formulas say."""

import math

import torch
from torch import nn
from torch.optim import SGD

from tests.support.quadratic import LR, Quadratic, close, shifts
from trainflat.optim import ASAM, ESAM, GSAM, FisherSSAM, FriendlySAM, LookSAM


def test_asam_on_a_quadratic():
    q = Quadratic()
    names = [("layer.weight", q.params[0]), ("layer.bias", q.params[1])]
    optimizer = ASAM(names, SGD, rho=0.7, eta=0.1, lr=LR)
    w = q.w
    for _ in range(5):
        g = q.gradient(w)
        t = torch.cat([w[:2].abs() + 0.1, torch.ones(2, dtype=w.dtype)])
        e = 0.7 * t * t * g / (t * g).norm()
        w = w - LR * q.gradient(w + e)
        optimizer.step(q.closure)
        close(q.w, w)
        close(optimizer.last_norm, e.norm())


def test_asam_knows_weights_by_name_or_by_two_dimensions():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.tensor([3.0, 1.0]).expand_as(p))

    def stretched(params):  # of two entries with one gradient, the larger goes further if it is a weight
        before = [p.detach().clone() for p in model.parameters()]
        with ASAM(params, SGD, lr=LR).perturbed():
            moved = [(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]
        return [bool(m[0] > 1.1 * m[1]) for m in moved]

    assert stretched(model.named_parameters()) == [True, False, True, False]
    assert stretched(model.parameters()) == [True, False, False, False]


def test_looksam_on_a_quadratic():
    q, noise = Quadratic(), shifts(7)
    optimizer = LookSAM(q.params, SGD, rho=0.3, k=3, alpha=0.7, lr=LR)
    w = q.w
    for step in range(7):
        q.shift = noise[step]
        g = q.gradient(w)
        if step % 3 == 0:
            taken = q.gradient(w + 0.3 * g / g.norm())
            gv = taken - (taken @ g) / (g @ g) * g
        else:
            taken = g + 0.7 * g.norm() / gv.norm() * gv
        w = w - LR * taken
        assert optimizer.second_pass == (step % 3 == 0)
        optimizer.step(q.closure)
        close(q.w, w)


def test_gsam_on_a_quadratic():
    q, noise = Quadratic(), shifts(6)
    optimizer = GSAM(q.params, SGD, rho=0.5, rho_min=0.1, alpha=0.4, lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 6)
    w = q.w
    for step in range(6):
        q.shift, share = noise[step], 1 - step / 6
        g = q.gradient(w)
        gp = q.gradient(w + (0.1 + 0.4 * share) * g / g.norm())
        w = w - LR * share * (gp - 0.4 * (g - (g @ gp) / (gp @ gp) * gp))
        optimizer.step(q.closure)
        schedule.step()
        close(q.w, w)


def test_friendlysam_on_a_quadratic():
    q, noise = Quadratic(), shifts(6)
    optimizer = FriendlySAM(q.params, SGD, rho=0.3, sigma=0.8, lmbda=0.6, lr=LR)
    w, mean = q.w, None
    for step in range(6):
        q.shift = noise[step]
        g = q.gradient(w)
        d = g if mean is None else g - 0.8 * mean
        mean = g if mean is None else 0.6 * mean + 0.4 * g
        w = w - LR * q.gradient(w + 0.3 * d / d.norm())
        optimizer.step(q.closure)
        close(q.w, w)


def test_fisher_ssam_on_a_quadratic():
    q, noise = Quadratic(), shifts(6)
    optimizer = FisherSSAM(q.params, SGD, rho=0.3, sparsity=0.5, refresh=2, lr=LR)
    w = q.w
    for step in range(6):
        q.shift = noise[step]
        g = q.gradient(w)
        if step % 2 == 0:
            m = torch.zeros(4, dtype=w.dtype).index_fill_(0, g.abs().topk(2).indices, 1)
        w = w - LR * q.gradient(w + 0.3 * m * g / g.norm())
        optimizer.step(q.closure)
        close(q.w, w)
        close(optimizer.last_norm, 0.3 * (m * g).norm() / g.norm())


def test_esam_displaces_a_share_of_the_weights_and_draws_anew():
    w = nn.Parameter(torch.zeros(20000, dtype=torch.float64))
    optimizer = ESAM([w], SGD, rho=0.5, beta=0.3, gamma=1.0, seed=5, lr=LR)
    drawn = []
    for _ in range(2):
        g = w.grad = torch.randn_like(w)
        with optimizer.perturbed():
            moved = w.detach().clone()
        drawn.append(moved != 0)
        close(moved, drawn[-1] * g * (0.5 / 0.3) / g.norm())
        close(optimizer.last_norm, moved.norm())
        assert abs(drawn[-1].double().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 20000)
        with torch.no_grad():
            optimizer.step()
            w.zero_()
    assert not torch.equal(*drawn)
    again = ESAM([w], SGD, rho=0.5, beta=0.3, gamma=1.0, seed=5, lr=LR)
    w.grad = torch.ones_like(w)
    with again.perturbed():
        assert torch.equal(w != 0, drawn[0])
    with ESAM([w], SGD, beta=0.3, seed=6, lr=LR).perturbed():
        assert not torch.equal(w != 0, drawn[0])
