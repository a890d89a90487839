"""CrAM against its formula, written for one long vector; its draws, its masks, its degenerate cases."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from tests.support.optimizers import bits, problem
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, CrAM
from trainflat.pruning import Masks

LR, RHO = 0.02, 0.3


class Bowl:
    """L(w) = w . H w / 2 over two matrices and a vector, in float64; H couples dropped weights to kept ones."""

    def __init__(self, scale: float = 1.0) -> None:
        draws = torch.Generator().manual_seed(0)
        shapes, self.scale = [(3, 4), (2, 5), (4,)], scale
        self.params = [nn.Parameter(torch.randn(s, generator=draws, dtype=torch.float64)) for s in shapes]
        root = torch.randn(26, 26, generator=draws, dtype=torch.float64) / 26**0.5
        self.hessian = root @ root.T
        self.matrices = torch.arange(26) < 22

    @property
    def w(self):
        return torch.cat([p.detach().flatten() for p in self.params])

    def closure(self):
        for p in self.params:
            p.grad = None
        w = torch.cat([p.flatten() for p in self.params])
        loss = w @ self.hessian @ w / 2 * self.scale
        loss.backward()
        return loss.item()

    def gradient(self, w, sparsity, plus=False):
        """By sorting; of 22 prunable entries."""
        g = self.hessian @ w
        point = w + RHO * g
        order = torch.where(self.matrices, point.abs(), torch.inf).argsort()
        kept = torch.ones_like(w)
        kept[order[: round(sparsity * 22)]] = 0
        return kept * (self.hessian @ (kept * point)) + (g if plus else 0)


@pytest.mark.parametrize("plus", [False, True], ids=["CrAM", "CrAM+"])
def test_steps_on_a_quadratic(plus):
    bowl = Bowl()
    optimizer = CrAM(bowl.params, SGD, rho=RHO, plus=plus, lr=LR)
    w, drawn = bowl.w, []
    for _ in range(8):
        drawn.append(optimizer.sparsity())
        w = w - LR * bowl.gradient(w, drawn[-1], plus)
        optimizer.step(bowl.closure)
        torch.testing.assert_close(bowl.w, w, rtol=1e-12, atol=1e-13)
    assert len(set(drawn)) > 1


def test_the_second_pass_stands_at_a_pruned_model():
    model, passes = problem()
    optimizer = CrAM(model.named_parameters(), SGD, sparsities=[0.5], exclude=["3."], lr=LR)
    head = model[3].weight.detach().clone()
    passes()
    with optimizer.perturbed():
        assert int((model[0].weight == 0).sum()) == 12
        assert model[0].bias.all()
        assert torch.equal(model[3].weight, head)  # excluded: neither displaced nor pruned


def test_matrices_are_ranked_together():
    small, large = nn.Parameter(torch.full((2, 2), 0.1)), nn.Parameter(torch.full((2, 2), 5.0))
    optimizer = CrAM([small, large], SGD, sparsities=[0.5], lr=LR)
    (small.sum() + large.sum()).backward()
    with optimizer.perturbed():
        assert not small.any()
        assert large.all()


def test_draws_are_known_from_seed_and_step():
    def drawn(seed):
        optimizer = CrAM([nn.Parameter(torch.ones(2, 2))], SGD, seed=seed, lr=LR)
        found = []
        for optimizer.steps_taken in range(300):
            found.append(optimizer.sparsity())
        return found

    assert drawn(0) == drawn(0) != drawn(1)
    counts = Counter(drawn(0))
    assert sorted(counts) == [0.5, 0.7, 0.9]
    assert min(counts.values()) > 70  # 100 expected, with a standard deviation of 8


def test_without_ascent_and_pruning_it_is_the_base_at_two_passes():
    for options in ({"rho": 0.0}, {"rho": 1e-300, "sparsities": [0.0]}):
        (one, first), (two, second) = problem(), problem()
        flat, base = CrAM(one.parameters(), AdamW, lr=LR, **options), AdamW(two.parameters(), lr=LR)
        for _ in range(4):
            flat.step(first)
            second()
            base.step()
        assert bits(one) == bits(two)


def test_plus_without_ascent_and_pruning_doubles_the_gradient():
    one, two = Bowl(), Bowl()
    flat = CrAM(one.params, SGD, rho=0.0, plus=True, lr=LR)
    base = SGD(two.params, lr=2 * LR)
    for _ in range(4):
        flat.step(one.closure)
        base.step(two.closure)
    torch.testing.assert_close(one.w, two.w, rtol=1e-14, atol=0)


@pytest.mark.parametrize("plus", [False, True], ids=["CrAM", "CrAM+"])
@pytest.mark.parametrize("sparsity", [0.2, 0.9])
def test_zeros_of_held_masks_stay(plus, sparsity):
    model, passes = problem()
    masks = Masks({"0.weight": torch.arange(24).reshape(6, 4) % 2 == 0})
    masks.apply_(model)
    optimizer = CrAM(model.parameters(), AdamW, rho=RHO, sparsities=[sparsity], plus=plus, lr=LR)
    with masks.hold(model).attach(optimizer):
        for _ in range(20):
            passes()
            with optimizer.perturbed():
                masks.check(model)
                zeros = sum(int((p == 0).sum()) for p in model.parameters() if p.dim() == 2)
                assert zeros == max(12, round(sparsity * 30))  # those of the masks count
                passes()
            optimizer.step()
            masks.check(model)


def test_a_loss_scale_changes_nothing():
    ends = []
    for scale in (1.0, 2.0**12):
        bowl = Bowl(scale)
        optimizer = CrAM(bowl.params, SGD, rho=RHO, plus=True, lr=LR)
        optimizer.loss_scale = scale
        for _ in range(4):
            bowl.closure()
            with optimizer.perturbed():
                bowl.closure()
            optimizer.finish_gradients()
            for p in bowl.params:
                p.grad /= scale
            optimizer.step()
        ends.append(bowl.w)
    assert torch.equal(*ends)


def test_plus_survives_an_overflow_and_a_copy():
    bowl = Bowl()
    optimizer = CrAM(bowl.params, SGD, rho=RHO, plus=True, lr=LR)
    bowl.closure()
    bowl.params[0].grad[0, 0] = float("inf")
    optimizer.loss_scale = 2.0
    before = bowl.w
    with optimizer.perturbed():
        assert torch.equal(bowl.w, before)
        bowl.closure()
    optimizer.finish_gradients()
    assert not bowl.params[0].grad.isfinite().all()  # so that a scaler skips the step
    bowl, optimizer = copy.deepcopy((bowl, optimizer))
    optimizer.loss_scale = 1.0
    optimizer.step(bowl.closure)
    w = before - LR * bowl.gradient(before, CrAM([nn.Parameter(torch.ones(1, 1))], SGD, lr=LR).sparsity(), plus=True)
    torch.testing.assert_close(bowl.w, w, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sparsities": 0.5}, "sparsities is a list of shares of weights to drop, got 0.5"),
        ({"sparsities": []}, "sparsities is a list of shares of weights to drop, got []"),
        ({"sparsities": [0.5, 1.0]}, "sparsities is a list of shares of weights to drop, each in [0, 1), got 1.0"),
        ({"sparsities": ["half"]}, "each in [0, 1), got 'half'"),
        ({"plus": "yes"}, "plus is true or false, got 'yes'"),
        ({"seed": 1.5}, "seed is a whole number >= 0, got 1.5"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(options, text):
    with pytest.raises(InputError) as caught:
        OPTIMIZERS.read({"name": "cram", **options})
    assert text in str(caught.value)
