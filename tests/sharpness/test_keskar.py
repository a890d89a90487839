"""Keskar's sharpness where it is known, and the random subspace that it searches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.objectives import bert_objective, flat, matrix, surface, survivors
from trainflat.core.errors import InputError, UnknownName
from trainflat.sharpness import Objective, keskar_sharpness, subspace
from trainflat.sharpness.subspace import Subspace

START = torch.linspace(-2, 2, 12)
G = torch.linspace(-1, 3, 12, dtype=torch.float64)
both = pytest.mark.parametrize("space", ["full", "subspace"])
few = {"dimension": 3, "seed": 5}


def basis(size, dimension, seed, **options):
    """A as a matrix [n, p]."""
    space = Subspace(size, dimension, seed, torch.zeros(1, dtype=torch.float64), **options)
    return np.stack([space.combine(e).numpy() for e in np.eye(dimension)], axis=1)


def box(a, start, epsilon):
    return epsilon * (np.abs(np.linalg.pinv(a) @ start.double().numpy()) + 1)


@pytest.mark.parametrize("epsilon", [5e-3, 1e-3, 5e-4])
def test_linear_loss_in_the_full_space(epsilon):
    """The highest corner: the sum of slope times half width."""
    found = keskar_sharpness(surface(START, G, level=0.3), epsilon, space="full")
    rise = (epsilon * (START.double().abs() + 1) * G.abs()).sum().item()
    assert found.sharpness == pytest.approx(100 * rise / 1.3, rel=1e-12)
    assert (found.loss, found.highest) == (pytest.approx(0.3), pytest.approx(0.3 + rise))
    assert (found.effort.gradients, found.effort.values, found.dimension) == (10, 1, 12)


@pytest.mark.parametrize("epsilon", [5e-3, 1e-3, 5e-4])
def test_linear_loss_in_the_subspace(epsilon):
    a = basis(12, 3, seed=5)
    found = keskar_sharpness(surface(START, G, level=0.3), epsilon, **few)
    rise = box(a, START, epsilon) @ np.abs(a.T @ G.numpy())
    assert found.sharpness == pytest.approx(100 * rise / 1.3, rel=1e-10)
    assert found.effort.gradients <= 5  # however small the box, its corner is a step or two away


def test_bowl_in_the_full_space():
    """From the bottom, where the gradient is 0, to any corner."""
    curvature = torch.linspace(1, 4, 12, dtype=torch.float64)
    found = keskar_sharpness(surface(START, 0.0, curvature), 0.01, space="full")
    rise = (curvature * (0.01 * (START.double().abs() + 1)) ** 2).sum().item() / 2
    assert found.sharpness == pytest.approx(100 * rise / 1.5, rel=1e-10)


def test_bowl_along_one_direction():
    a = basis(12, 1, seed=2)[:, 0]
    curvature = torch.linspace(1, 4, 12, dtype=torch.float64)
    found = keskar_sharpness(surface(START, 0.0, curvature), 0.01, dimension=1, seed=2)
    rise = box(a[:, None], START, 0.01)[0] ** 2 * (a * a * curvature.numpy()).sum() / 2
    assert found.sharpness == pytest.approx(100 * rise / 1.5, rel=1e-10)


def test_maximum_inside_the_box():
    """On a hill whose top lies in the box, L-BFGS-B climbs to the top."""
    a = basis(12, 3, seed=5)
    top = box(a, START, 0.01) * np.array([0.5, -0.3, 0.1])
    hessian = -torch.eye(12, dtype=torch.float64)
    slope = torch.from_numpy(a @ top)
    found = keskar_sharpness(surface(START, slope, hessian), 0.01, iterations=20, **few)
    assert found.sharpness == pytest.approx(100 * 0.5 * float(slope @ slope) / 1.5, rel=1e-6)
    assert found.effort.gradients <= 2 * 20 + 1


@both
def test_a_summit_has_no_sharpness(space):
    found = keskar_sharpness(surface(START, 0.0, -1.0), 0.01, space=space, dimension=3)
    assert found.sharpness == 0
    assert found.highest == found.loss


def test_search_against_a_grid():
    """Two directions of a saddle with a slope, every place of the box tried."""
    a, h = basis(12, 2, seed=7), matrix(12).numpy()
    b = box(a, START, 0.05)
    ticks = np.linspace(-1, 1, 201)
    z = np.stack(np.meshgrid(*(ticks * width for width in b)), axis=-1).reshape(-1, 2)
    heights = z @ (a.T @ G.numpy()) + np.einsum("ki,ij,kj->k", z, a.T @ h @ a, z) / 2
    found = keskar_sharpness(surface(START, G, matrix(12), level=0.0), 0.05, dimension=2, iterations=30, seed=7)
    assert found.sharpness == pytest.approx(100 * heights.max(), rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.sampled_from(["full", "subspace"]), st.floats(1e-4, 0.3))
def test_never_below_zero_and_within_budget(seed, space, epsilon):
    objective = surface(START, torch.randn(12, generator=torch.Generator().manual_seed(seed)), matrix(12, seed))
    found = keskar_sharpness(objective, epsilon, space=space, dimension=4, iterations=3, seed=seed)
    assert found.sharpness >= 0
    assert found.effort.gradients <= 7
    assert found.figures() == {f"keskar{'_full' if space == 'full' else ''}_{epsilon:g}": found.sharpness}


@both
def test_a_larger_box_is_no_flatter(space):
    rises = [keskar_sharpness(bert_objective(5), e, space=space, dimension=9).sharpness for e in (1e-4, 1e-3, 1e-2)]
    assert 0 < rises[0] < rises[1] < rises[2]


@both
def test_a_float32_transformer_agrees_with_its_float64_self(space):
    """A small box must not drown in rounding."""
    precise = bert_objective(5)
    expected = keskar_sharpness(precise, 1e-3, space=space, dimension=20).sharpness
    coarse = Objective(precise.model.float(), precise.batches)
    assert keskar_sharpness(coarse, 1e-3, space=space, dimension=20).sharpness == pytest.approx(expected, rel=2e-3)


@both
def test_only_survivors_move(space):
    kept = torch.tensor([[True, False], [False, True]])
    objective = surface(START, G, masks={"a": kept})
    rows = flat(objective.restrict([torch.ones_like(w) for w in objective.weights])).detach().bool()
    found = keskar_sharpness(objective, 1e-3, space=space, **few).sharpness
    if space == "full":
        rise = (1e-3 * (START.double().abs() + 1) * G.abs())[rows].sum().item()
    else:
        a = basis(12, 3, seed=5, kept=rows)
        assert (a[~rows.numpy()] == 0).all()
        rise = box(a, START * rows, 1e-3) @ np.abs(a.T @ G.numpy())
    assert found == pytest.approx(100 * rise / 1.5, rel=1e-10)


def test_a_subspace_in_blocks(monkeypatch):
    """Held or drawn again, its products are those of one matrix."""
    monkeypatch.setattr(subspace, "_ROWS", 7)
    x = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = basis(30, 4, seed=1)
    for held in (0, 4 * 7 * 2, 10**9):
        monkeypatch.setattr(subspace, "_HELD", held)
        space = Subspace(30, 4, 1, x)
        for _ in range(2):
            np.testing.assert_allclose(space.project(x), a.T @ x.numpy(), rtol=1e-13)
            np.testing.assert_allclose(space.combine(np.arange(4.0)), a @ np.arange(4.0), rtol=1e-13)
        np.testing.assert_allclose(space.coordinates(x), np.linalg.pinv(a) @ x.numpy(), rtol=1e-10)
        assert len(space._blocks) == min(5, held // 28)
    assert not np.allclose(a[:7], a[7:14])


def test_entries_are_standard_normal():
    a = basis(70_000, 4, seed=3)  # two blocks
    n = a.size
    assert abs(a.mean()) < 4.5 / n**0.5
    assert abs(a.var() - 1) < 1e-3 + 4.5 * (2 / n) ** 0.5
    assert abs((a**4).mean() - 3) < 1e-2 + 4.5 * (96 / n) ** 0.5
    gram = a.T @ a / 70_000
    assert np.abs(gram - np.eye(4)).max() < 1e-3 + 4.5 * (2 / 70_000) ** 0.5
    assert not np.array_equal(a, basis(70_000, 4, seed=4))


def test_global_randomness_is_not_drawn_from():
    state = torch.get_rng_state()
    basis(20, 2, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


@both
@pytest.mark.parametrize("level", [-1.0, -3.0])
def test_a_loss_of_which_there_is_no_share(space, level):
    """Below -1 the highest loss would come out as the flattest; at -1 there is nothing to divide by."""
    with pytest.raises(InputError, match=rf"a share of 1 \+ loss, and the loss is {level:g}\. Give one above -1"):
        keskar_sharpness(surface(START, G, level=level), space=space, dimension=3)


def test_refusals():
    objective = surface(START, G)
    for epsilon in (0, -1e-3, float("nan"), float("inf"), "small", True):
        with pytest.raises(InputError, match=r"epsilon is the size of Keskar's box, a number above 0, got"):
            keskar_sharpness(objective, epsilon)
    for name, words in (("dimension", "the number of random directions"), ("iterations", "the budget of the search")):
        for value in (0, -1, 2.5, True):
            with pytest.raises(InputError, match=f"{name} is {words}.* whole number of at least 1, got {value}"):
                keskar_sharpness(objective, **{name: value})
    with pytest.raises(UnknownName, match=r"no space for Keskar's box is called 'ful'. Did you mean 'full'"):
        keskar_sharpness(objective, space="ful")
    with pytest.raises(InputError, match=r"dimension is 13, but only 12 weights may move. Take fewer directions"):
        keskar_sharpness(objective, dimension=13)
    with pytest.raises(InputError, match="the loss is nan at the weights themselves"):
        keskar_sharpness(surface(START, level=float("nan")), dimension=2)
    for space in ("full", "subspace"):
        with pytest.raises(InputError, match=r"the loss is (inf|nan) in Keskar's box; take a smaller epsilon"):
            keskar_sharpness(surface(START, G, 1e308), 1e9, space=space, dimension=2)


def test_survivors_of_a_transformer_are_fewer():
    objective = bert_objective(4)
    found = keskar_sharpness(bert_objective(4, masks=survivors(objective)), dimension=5)
    assert found.effort.weights < objective.size
