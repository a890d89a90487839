"""Methods that take a first and a second pass: degenerate cases, counted passes, peers, values that do not fit."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.support.optimizers import problem
from tests.support.quadratic import CURVATURE, LR, START, Quadratic, shifts
from trainflat.core.errors import InputError
from trainflat.optim import ASAM, ESAM, GSAM, SAM, FisherSSAM, FriendlySAM, LookSAM
from trainflat.pruning import Masks


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


def test_ssam_counts_the_weights_that_are_left():
    model = nn.Linear(4, 2, bias=False)
    masks = Masks({"weight": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]]).bool()})
    optimizer = FisherSSAM(model.parameters(), SGD, sparsity=0.25, lr=LR)
    with masks.hold(model).attach(optimizer):
        model.weight.grad = torch.tensor([[9.0, 9.0, 0.0, 0.0], [9.0, 9.0, 5.0, 0.0]])
        with optimizer.perturbed():
            chosen = optimizer.memory[model.weight]["mask"]
    assert chosen.tolist() == [[False, False, True, True], [False, False, True, False]]  # 3 of 4, ties in order


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
