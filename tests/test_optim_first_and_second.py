"""Methods that take a first and a second pass: closed forms, degenerate cases, peers, and what they remember."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from tests.optimizers import problem
from trainflat.errors import InputError
from trainflat.optim import ASAM, ESAM, GSAM, SAM, FisherSSAM, FriendlySAM, LookSAM

CURVATURE = torch.tensor([1.0, 10.0, 3.0, 0.5], dtype=torch.float64)
START = torch.tensor([3.0, -0.4, 1.0, 2.0], dtype=torch.float64)
LR = 0.02


class Quadratic:
    """L(w) = w . (h w) / 2 + shift . w over two parameters of two entries, so that norms have to be joint."""

    def __init__(self, scale: float = 1.0) -> None:
        self.params = [nn.Parameter(part.clone()) for part in START.split(2)]
        self.shift, self.scale = torch.zeros_like(START), scale

    @property
    def w(self) -> Tensor:
        return torch.cat([p.detach() for p in self.params])

    def closure(self) -> float:
        for p in self.params:
            p.grad = None
        w = torch.cat(self.params)
        loss = (w * CURVATURE * w).sum() / 2 + (self.shift * w).sum()
        (self.scale * loss).backward()
        return loss.item()

    def gradient(self, w: Tensor) -> Tensor:
        return CURVATURE * w + self.shift


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


def shifts(steps: int) -> Tensor:
    """The noise of mini-batches."""
    return torch.randn(steps, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (lambda params: LookSAM(params, SGD, rho=0.3, k=1, lr=LR), True),
        (lambda params: GSAM(params, SGD, rho=0.3, rho_min=0.3, alpha=0.0, lr=LR), True),
        (lambda params: FriendlySAM(params, SGD, rho=0.3, sigma=0.0, lr=LR), True),
        (lambda params: FisherSSAM(params, SGD, rho=0.3, sparsity=0.0, lr=LR), True),
        (lambda params: ESAM(params, SGD, rho=0.3, beta=1.0, gamma=1.0, lr=LR), True),
        (lambda params: ASAM(params, SGD, rho=0.3e-8, eta=1e8, lr=LR), False),  # to rounding
    ],
    ids=["looksam k=1", "gsam alpha=0", "friendlysam sigma=0", "ssam sparsity=0", "esam beta=gamma=1", "asam eta=1e8"],
)
def test_degenerate_cases_are_sam(make, same):
    one, two = problem()[0], problem()[0]
    for parameter in [*one.parameters(), *two.parameters()]:
        parameter.data = parameter.data.double()
    inputs = torch.randn(5, 12, 4, dtype=torch.float64)
    names = list(one.named_parameters())
    flat = make([(f"{n}.weight", p) for n, p in names])
    sam = SAM(two.parameters(), SGD, rho=0.3, lr=LR)
    for batch in inputs:
        for model, optimizer in ((one, flat), (two, sam)):

            def closure(model=model, batch=batch):
                model.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0 if same else 1e-8)


def test_without_a_ball_nothing_is_reused():
    """Rounding alone would be a direction of its own."""
    (one, first), (two, second) = problem(), problem()
    look, plain = LookSAM(one.parameters(), SGD, rho=0.0, k=2, lr=LR), SGD(two.parameters(), lr=LR)
    for _ in range(4):
        look.step(first)
        second()
        plain.step()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)


COUNTED = [
    (LookSAM, {"k": 4}, 8, 10),
    (LookSAM, {}, 10, 12),
    (GSAM, {}, 5, 10),
    (FriendlySAM, {}, 5, 10),
    (FisherSSAM, {}, 5, 10),
    (ASAM, {}, 5, 10),
    (ESAM, {"gamma": 1.0}, 5, 10),
]


@pytest.mark.parametrize(("method", "options", "steps", "passes"), COUNTED)
def test_passes_are_as_announced(method, options, steps, passes):
    q, calls = Quadratic(), []
    optimizer = method(q.params, SGD, lr=LR, **options)
    for _ in range(steps):
        optimizer.step(lambda: calls.append(1) or q.closure())
    assert len(calls) == passes == pytest.approx(steps * method.average_passes(options))
    assert ESAM.average_passes({"gamma": 0.25}) == pytest.approx(1 + 1 / 3 + 0.25)


@pytest.mark.parametrize("method", [LookSAM, GSAM, FriendlySAM])
def test_gradients_that_are_zeroed_in_place_do_not_reach_the_first_ones(method):
    paths = []
    for to_none in (True, False):
        q, noise = Quadratic(), shifts(4)
        optimizer = method(q.params, SGD, lr=LR, rho=0.3)

        def one_pass(q=q, optimizer=optimizer, to_none=to_none):
            optimizer.zero_grad(set_to_none=to_none)
            w = torch.cat(q.params)
            ((w * CURVATURE * w).sum() / 2 + (q.shift * w).sum()).backward()

        for shift in noise:
            q.shift = shift
            one_pass()
            if optimizer.second_pass:
                with optimizer.perturbed():
                    one_pass()
            optimizer.step()
        paths.append(q.w)
    assert torch.equal(*paths)


@pytest.mark.parametrize(
    ("ours", "options", "peers", "peer_options"),
    [
        (FriendlySAM, {"sigma": 0.7, "lmbda": 0.6}, "FriendlySAM", {"sigma": 0.7, "lmbda": 0.6}),
        (LookSAM, {"k": 3, "alpha": 0.6}, "LookSAM", {"k": 3, "alpha": 0.6}),
    ],
)
def test_a_peer_takes_the_same_path(ours, options, peers, peer_options):
    """One tensor, over which the peer's LookSAM, which projects by tensor, projects as the paper does."""
    import pytorch_optimizer

    noise, ends = shifts(9), []
    for make in (
        lambda w: ours([w], SGD, rho=0.3, lr=LR, **options),
        lambda w: getattr(pytorch_optimizer, peers)([w], SGD, rho=0.3, lr=LR, **peer_options),
    ):
        w = nn.Parameter(START.clone())
        optimizer = make(w)
        for shift in noise:

            def closure(w=w, optimizer=optimizer, shift=shift):
                optimizer.zero_grad()
                loss = (w * CURVATURE * w).sum() / 2 + (shift * w).sum()
                loss.backward()
                return loss

            if not isinstance(optimizer, ours):
                closure()  # the peer takes the second pass only
            optimizer.step(closure)
        ends.append(w.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-7, atol=1e-9)


def test_gsam_and_its_peer_make_the_same_gradient():
    """The decomposition only: the peer takes its steps through a model and a loss."""
    from pytorch_optimizer import GSAM as Peer  # noqa: N811
    from pytorch_optimizer.lr_scheduler import ProportionScheduler

    q, model = Quadratic(), nn.Linear(2, 2, bias=False, dtype=torch.float64)
    base = SGD(q.params, lr=LR)
    schedule = ProportionScheduler(torch.optim.lr_scheduler.ConstantLR(base, 1.0), LR, 0.0, 0.3, 0.3)
    peer = Peer(q.params, base, model, schedule, alpha=0.4)
    ours = GSAM([nn.Parameter(p.detach().clone()) for p in q.params], SGD, rho=0.3, rho_min=0.3, alpha=0.4, lr=LR)
    q.closure()
    peer.perturb_weights(0.3)
    q.closure()
    peer.gradient_decompose(0.4)
    theirs = torch.cat([p.grad for p in q.params])
    mine = Quadratic()
    mine.params = ours.param_groups[0]["params"]
    mine.closure()
    with ours.perturbed():
        mine.closure()
    ours.finish_gradients()
    # whose norms are float32
    torch.testing.assert_close(torch.cat([p.grad for p in mine.params]), theirs, rtol=1e-6, atol=0)


BAD = [
    (ASAM, {"eta": -1}, "eta is a number >= 0"),
    (LookSAM, {"k": 0}, "k is a whole number >= 1, got 0"),
    (LookSAM, {"k": 2.5}, "k is a whole number >= 1, got 2.5"),
    (LookSAM, {"alpha": -1}, "alpha is the weight"),
    (ESAM, {"beta": 0}, "beta is the share of weights"),
    (ESAM, {"gamma": 1.5}, "gamma is the share of rows"),
    (ESAM, {"seed": "x"}, "seed is a whole number >= 0"),
    (FisherSSAM, {"sparsity": 1.0}, "sparsity is the share"),
    (FisherSSAM, {"refresh": math.inf}, "refresh is a whole number >= 1, got inf"),
    (GSAM, {"rho": 0.1, "rho_min": 0.2}, "from 0 to rho = 0.1, got 0.2"),
    (GSAM, {"alpha": True}, "alpha is the weight"),
    (FriendlySAM, {"sigma": -0.1}, "sigma is the share"),
    (FriendlySAM, {"lmbda": 1}, "lmbda is the decay"),
]


@pytest.mark.parametrize(("method", "options", "text"), BAD)
def test_bad_values_are_one_line(method, options, text):
    with pytest.raises(InputError) as caught:
        method([nn.Parameter(torch.ones(2))], **options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
