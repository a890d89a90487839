"""SAM against closed forms, the p-norm formula and an independent implementation."""

import math

import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.optim import SAM, AdamW
from trainflat.optim.perturbation import scales_to_ball
from trainflat.optim.vectors import joint_norm

BASES = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "adamw fused": (AdamW, {"lr": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "radam": (torch.optim.RAdam, {"lr": 0.01}),
    "asgd": (torch.optim.ASGD, {"lr": 0.01}),
    "rprop": (torch.optim.Rprop, {"lr": 0.01}),
    "adafactor": (torch.optim.Adafactor, {"lr": 0.01}),
}


def quadratic(curvature: list[float], start: list[float]):
    """f(w) = sum h w^2 / 2, so that the gradient is h w."""
    h, w = torch.tensor(curvature, dtype=torch.float64), nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def closure() -> Tensor:
        w.grad = None
        loss = (h * w.square()).sum() / 2
        loss.backward()
        return loss

    return w, h, closure


def network(seed: int = 0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 3)).to(dtype)
    inputs, targets = torch.randn(16, 5, dtype=dtype), torch.randint(0, 3, (16,))

    def closure() -> Tensor:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    return model, closure


def test_one_step_on_a_quadratic():
    w, h, closure = quadratic(curvature=[1.0, 100.0], start=[3.0, 0.04])
    w0, lr, rho = w.detach().clone(), 1e-3, 0.5
    loss = SAM([w], base_optimizer=torch.optim.SGD, rho=rho, lr=lr).step(closure)
    g = h * w0
    torch.testing.assert_close(w.detach(), w0 - lr * h * (w0 + rho * g / g.norm()), rtol=1e-14, atol=0)
    torch.testing.assert_close(loss.detach(), (h * w0.square()).sum() / 2, rtol=1e-14, atol=0)  # of the first pass


def test_the_norm_runs_over_all_parameters_together():
    (a, ha, first), (b, hb, second) = quadratic([2.0], [1.5]), quadratic([5.0, 1.0], [-1.0, 4.0])
    optimizer = SAM([a, b], base_optimizer=torch.optim.SGD, rho=0.3, lr=0.1)
    ga, gb, (wa, wb) = ha * a.detach(), hb * b.detach(), (a.detach().clone(), b.detach().clone())
    norm = torch.cat([ga, gb]).norm()
    first(), second()
    with optimizer.perturbed():
        torch.testing.assert_close(a.detach(), wa + 0.3 * ga / norm, rtol=1e-14, atol=0)
        torch.testing.assert_close(b.detach(), wb + 0.3 * gb / norm, rtol=1e-14, atol=0)
    assert optimizer.last_norm.item() == pytest.approx(0.3, rel=1e-14)


@pytest.mark.parametrize(("base", "options"), BASES.values(), ids=BASES.keys())
def test_ball_of_radius_zero_is_the_base_optimizer(base, options):
    (flat, flat_closure), (plain, plain_closure) = (network(dtype=torch.float32) for _ in range(2))
    sam, reference = SAM(flat.parameters(), base, rho=0.0, **options), base(plain.parameters(), **options)
    for _ in range(5):
        sam.step(flat_closure)
        plain_closure()
        reference.step()
    assert all(torch.equal(p, q) for p, q in zip(flat.parameters(), plain.parameters(), strict=True))
    assert sam.last_norm == 0


def exact_squared_norm(groups, weight_adaptive):
    return sum(p.grad.double().square().sum() for group in groups for p in group["params"]).reshape(1)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("base", "options"), list(BASES.values())[:3], ids=list(BASES)[:3])
def test_takes_the_steps_of_pytorch_optimizer(monkeypatch, base, options, foreach, rounded):
    if not rounded:  # theirs rounds the norm to float32 also where the gradients are float64: 6e-8 of the radius
        monkeypatch.setattr("pytorch_optimizer.optimizer.sam.get_global_gradient_norm", exact_squared_norm)
    (ours, our_closure), (theirs, their_closure) = network(), network()
    sam = SAM(ours.parameters(), base, rho=0.1, foreach=foreach, **options)
    # Theirs adds a constant to the norm, ours has none; theirs wants the first gradient before step().
    peer = pytorch_optimizer.SAM(theirs.parameters(), base, rho=0.1, perturb_eps=0.0, foreach=foreach, **options)
    tolerance = 1e-6 if rounded else 1e-11
    for _ in range(10):
        loss = sam.step(our_closure)
        torch.testing.assert_close(loss, their_closure(), rtol=tolerance, atol=0)
        peer.step(their_closure)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def dual_point(g: Tensor, rho: float, p: float) -> Tensor:
    """The formula as it stands in the paper."""
    if p == math.inf:
        return rho * g.sign()
    q = p / (p - 1)
    return rho * g.sign() * g.abs() ** (q - 1) / (g.abs() ** q).sum() ** (1 / p)


GRADIENTS = st.lists(st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3), min_size=3, max_size=8)


def displaced(g: Tensor, rho: float, p: float) -> Tensor:
    """The move that SAM makes from zero, over two tensors of a group."""
    parts = [nn.Parameter(torch.zeros(2, dtype=g.dtype)), nn.Parameter(torch.zeros(len(g) - 2, dtype=g.dtype))]
    for part, grad in zip(parts, (g[:2], g[2:]), strict=True):
        part.grad = grad.clone()
    with SAM(parts, torch.optim.SGD, rho=rho, p=p, lr=0.1).perturbed():
        return torch.cat([part.detach().clone() for part in parts])


@settings(max_examples=60, deadline=None)
@given(GRADIENTS, st.sampled_from([1.25, 1.5, 2.0, 3.0, 10.0, math.inf]), st.floats(1e-3, 10))
def test_every_ball_follows_the_formula(values, p, rho):
    g = torch.tensor(values, dtype=torch.float64)
    e = displaced(g, rho, p)
    torch.testing.assert_close(e, dual_point(g, rho, p), rtol=1e-12, atol=1e-15)
    assert torch.linalg.vector_norm(e, p).item() == pytest.approx(rho, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(GRADIENTS, st.sampled_from([1.0, 1.5, 2.0, 4.0, math.inf]), st.integers(0, 2**31))
def test_no_other_point_of_the_ball_is_steeper(values, p, seed):
    g = torch.tensor(values, dtype=torch.float64)
    other = torch.randn(len(g), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    other *= 0.7 / torch.linalg.vector_norm(other, p)
    assert g @ displaced(g, 0.7, p) >= g @ other - 1e-9


def test_a_cross_shaped_ball_moves_the_largest_entries_only():
    e = displaced(torch.tensor([1.0, -4.0, 4.0, 0.5], dtype=torch.float64), 0.6, 1.0)
    assert e.tolist() == [0.0, -0.3, 0.3, 0.0]


def test_powers_near_the_cross_neither_overflow_nor_vanish():
    e = displaced(torch.tensor([1e8, 5e7, 1e-9]), 0.5, 1.01)  # q = 101: 1e8 ** 100 is beyond float32
    torch.testing.assert_close(e, torch.tensor([0.5, 0.0, 0.0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("value", [0.0, math.inf, -math.inf, math.nan])
def test_a_gradient_without_direction_displaces_nothing(p, value):
    w = nn.Parameter(torch.ones(4))
    optimizer = SAM([w], torch.optim.SGD, rho=0.5, p=p, lr=0.1)
    w.grad = torch.ones(4)
    with optimizer.perturbed():
        assert not torch.equal(w, torch.ones(4))
    assert optimizer.last_norm > 0
    w.grad = torch.full((4,), value) if value == 0 else torch.tensor([1.0, value, 0.0, 2.0])
    with optimizer.perturbed():
        assert torch.equal(w, torch.ones(4))
    assert optimizer.last_norm == 0


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_scale_of_the_gradient_does_not_matter(dtype, scale):
    w = nn.Parameter(torch.zeros(3, dtype=dtype))
    w.grad = torch.tensor([3e-5, 0.0, -4e-5], dtype=dtype) * scale
    with SAM([w], torch.optim.SGD, rho=5.0, lr=0.1).perturbed():  # unscaled, rho / norm is beyond float16
        torch.testing.assert_close(w.detach().double(), torch.tensor([3.0, 0.0, -4.0]).double(), rtol=2e-2, atol=0)


def test_each_group_has_its_radius_under_one_norm():
    a, b, c = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(3))
    groups = [{"params": [a]}, {"params": [b], "rho": 0.5}, {"params": [c], "rho": 0.0}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.1, lr=0.1)
    assert [group["rho"] for group in optimizer.param_groups] == [0.1, 0.5, 0.0]
    a.grad, b.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    c.grad = torch.full((2,), 99.0, dtype=torch.float64)  # not displaced, so not in the norm either
    with optimizer.perturbed():
        moved = torch.cat([a, b, c]).tolist()
    assert moved == pytest.approx([0.1 * 3 / 5, 0, 0, 0.5 * 4 / 5, 0, 0], rel=1e-14)
    assert optimizer.last_norm.item() == pytest.approx(math.hypot(0.06, 0.4), rel=1e-14)


def test_several_dtypes_share_one_norm():
    a, b = nn.Parameter(torch.zeros(1, dtype=torch.float64)), nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    a.grad, b.grad = torch.full_like(a, 3.0), torch.full_like(b, 4.0)
    with SAM([a, b], torch.optim.SGD, rho=1.0, lr=0.1).perturbed():
        assert a.item() == pytest.approx(0.6, rel=1e-12)
        assert b.item() == pytest.approx(0.8, rel=4e-3)


def test_the_norm_of_halves_is_taken_in_float32():
    assert joint_norm([torch.full((10_000,), 1000.0, dtype=torch.float16)], 2).item() == pytest.approx(1e5, rel=1e-6)


@pytest.mark.parametrize("order", [1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("shape", [(1,), (2048,), (2049,), (37, 83), (40, 100, 3)])
def test_the_joint_norm_is_that_of_the_entries(shape, order):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64), torch.randn(7, dtype=torch.float64)]
    entries = torch.cat([t.flatten() for t in tensors])
    strided = [tensors[0].mT if len(shape) > 1 else tensors[0], tensors[1]]
    torch.testing.assert_close(joint_norm(strided, order), torch.linalg.vector_norm(entries, order), rtol=1e-13, atol=0)


def test_the_norm_of_a_large_embedding_is_right():
    big = torch.full((3_000_001,), 1e-3)  # torch's own norm of it is off by 1e-3
    assert joint_norm([big], 2).item() == pytest.approx(big.double().norm().item(), rel=1e-5)


@pytest.mark.parametrize("length", [0.0, 3.0, math.inf, math.nan])
def test_factors_left_on_the_device_are_the_ones_that_are_read(length):
    norms, rhos = [torch.tensor(length), torch.tensor(4.0 if length else 0.0)], [0.1, 0.2]
    read, norm = scales_to_ball(norms, rhos, 2.0, read=True)
    left, same_norm = scales_to_ball(norms, rhos, 2.0, read=False)
    assert [float(s) for s in left] == pytest.approx([float(s) for s in read] or [0.0, 0.0])
    assert same_norm.item() == pytest.approx(norm.item())


@pytest.mark.parametrize("overflow", [False, True])
def test_factors_left_on_the_device_move_the_weights_alike(monkeypatch, overflow):
    def unread(norms, rhos, p):
        return scales_to_ball(norms, rhos, p, read=False)

    monkeypatch.setattr("trainflat.optim.perturbation.scales_to_ball", unread)
    e = displaced(torch.tensor([3.0, 0.0, 4.0 if not overflow else math.inf]), 0.5, 2.0)
    torch.testing.assert_close(e, torch.zeros(3) if overflow else torch.tensor([0.3, 0.0, 0.4]))


@pytest.mark.parametrize("p", [0.5, -1.0, math.nan, "2"])
def test_refuses_a_norm_that_is_none(p):
    with pytest.raises(InputError, match="p is the norm"):
        SAM([nn.Parameter(torch.ones(2))], p=p)


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf, "0.05"])
def test_refuses_a_radius_that_is_none(rho):
    with pytest.raises(InputError, match="rho is the radius"):
        SAM([nn.Parameter(torch.ones(2))], rho=rho)
    with pytest.raises(InputError, match="rho is the radius"):
        SAM([{"params": [nn.Parameter(torch.ones(2))], "rho": rho}])
