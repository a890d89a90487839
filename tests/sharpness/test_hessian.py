"""Eigenvalues, trace and spectral density against matrices that are known."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from tests.support.objectives import bert_objective, flat, matrix, surface, survivors
from trainflat.core.errors import InputError, UnknownName
from trainflat.sharpness import Objective, hessian_eigenvalues, hessian_trace, spectral_density
from trainflat.sharpness.lanczos import lanczos, orthogonalize

START = torch.zeros(30)
exactly = {"iterations": 200, "tolerance": 1e-11}


@pytest.fixture(scope="module")
def dense():
    """The Hessian of a tiny transformer by torch's own vectorized double backward."""
    objective = bert_objective(4, attention="eager")
    model, (batch,) = objective.model.eval(), objective.batches
    shapes = dict(zip(objective.names, objective.weights, strict=True))

    def loss(weights):
        pieces = weights.split([w.numel() for w in shapes.values()])
        named = {name: p.view_as(w) for (name, w), p in zip(shapes.items(), pieces, strict=True)}
        return functional_call(model, named, kwargs=batch).loss

    return torch.autograd.functional.hessian(loss, flat(objective.weights).detach(), vectorize=True)


@pytest.mark.parametrize("sizes", [(4,), (3, 1)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_eigenvalues_of_a_transformer(dense, sizes, attention):
    expected = torch.linalg.eigvalsh(dense).flip(0)
    found = hessian_eigenvalues(bert_objective(*sizes, attention=attention), k=5, **exactly)
    assert found.converged
    torch.testing.assert_close(torch.tensor(found.values).double(), expected[:5], rtol=1e-6, atol=0)
    assert found.lowest == pytest.approx(expected[-1].item(), rel=1e-6)


def test_eigenvalues_among_survivors(dense):
    objective = bert_objective(4)
    masks = survivors(objective)
    ones = [
        masks.get(n, torch.ones_like(w, dtype=torch.bool))
        for n, w in zip(objective.names, objective.weights, strict=True)
    ]
    kept = flat(ones)
    expected = torch.linalg.eigvalsh(dense[kept][:, kept]).flip(0)
    found = hessian_eigenvalues(bert_objective(4, masks=masks), k=3, **exactly)
    torch.testing.assert_close(torch.tensor(found.values).double(), expected[:3], rtol=1e-6, atol=0)


def test_trace_of_a_transformer(dense):
    samples = 60
    found = hessian_trace(bert_objective(4), samples)
    variance = 2 * (dense.square().sum() - dense.diagonal().square().sum())
    assert abs(found.trace - dense.trace()) < 4 * (variance / samples).sqrt()
    assert found.standard_error == pytest.approx((variance / samples).sqrt().item(), rel=0.5)


@pytest.mark.parametrize("n", [5, 30])
def test_trace_of_a_matrix(n):
    h, samples = matrix(n), 500
    found = hessian_trace(surface(torch.zeros(n), 0.0, h), samples)
    variance = 2 * (h.square().sum() - h.diagonal().square().sum())
    assert abs(found.trace - h.trace()) < 4 * (variance / samples).sqrt()
    assert found.standard_error == pytest.approx((variance / samples).sqrt().item(), rel=0.2)
    assert found.effort.products == samples


def test_trace_of_a_diagonal_needs_no_luck():
    found = hessian_trace(surface(START, 0.0, torch.linspace(-1, 4, 30, dtype=torch.float64)), 2)
    assert (found.trace, found.standard_error) == (pytest.approx(45.0, rel=1e-12), pytest.approx(0, abs=1e-12))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100), st.integers(1, 4))
def test_eigenvalues_of_matrices(seed, k):
    h = matrix(12, seed)
    found = hessian_eigenvalues(surface(torch.zeros(12), 0.0, h), k, seed=seed, tolerance=1e-12)
    expected = torch.linalg.eigvalsh(h).flip(0)[:k]
    assert found.values == pytest.approx(expected.tolist(), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    "diagonal", [[5.0, 5.0, 1.0] + [0.0] * 9, [3.0] * 12, [0.0] * 12, [2.0] + [-7.0] * 11, [0.5] * 6 + [2.0**-40] * 6]
)
def test_multiple_eigenvalues(diagonal):
    """A single Krylov space holds each value once; new vectors find the rest."""
    found = hessian_eigenvalues(surface(torch.zeros(12), 0.0, torch.tensor(diagonal).double()), k=4)
    rounding = 12 * 2.0**-52 * max(map(abs, diagonal))  # of a sum of as many products
    assert found.values == pytest.approx(sorted(diagonal, reverse=True)[:4], rel=1e-9, abs=rounding)


def test_errors_bound_the_error_and_end_the_search():
    h = matrix(200)
    expected = torch.linalg.eigvalsh(h)
    objective = surface(torch.zeros(200), 0.0, h)
    loose, tight = (hessian_eigenvalues(objective, tolerance=t, iterations=100) for t in (0.05, 1e-6))
    for found in (loose, tight):
        assert found.converged
        assert min(abs(expected - found.values[0])) <= found.errors[0] <= found.tolerance * expected.abs().max()
        assert found.effort.products == found.iterations
    assert loose.iterations < tight.iterations < 100
    short = hessian_eigenvalues(objective, iterations=3)
    assert (short.converged, short.iterations) == (False, 3)
    assert short.errors[0] > 1e-3 * short.values[0]


def test_differences_of_gradients_do_as_well():
    for ask in (hessian_eigenvalues, lambda o, **options: hessian_trace(o, 5, **options)):
        exact, close = (ask(bert_objective(4), products=way) for way in ("exact", "differences"))
        assert list(close.figures().values()) == pytest.approx(list(exact.figures().values()), rel=1e-4)
        assert close.effort.gradients == 2 * exact.effort.products


def test_float32_agrees():
    precise = bert_objective(4)
    expected = hessian_eigenvalues(precise, k=3).values, hessian_trace(precise).trace
    coarse = Objective(precise.model.float(), precise.batches)
    assert hessian_eigenvalues(coarse, k=3).values == pytest.approx(expected[0], rel=3e-3)
    assert hessian_trace(coarse).trace == pytest.approx(expected[1], rel=1e-3)
    found = hessian_eigenvalues(coarse, products="differences").values[0]
    assert found == pytest.approx(expected[0][0], rel=5e-3)


def test_lanczos_keeps_its_basis_orthonormal():
    """Also long after eigenvalues have converged, where the plain process loses it."""
    diagonal = torch.cat([torch.tensor([1e4, 1e3]), torch.rand(298, generator=torch.Generator().manual_seed(0))])
    seen = []

    def product(v):
        seen.append(v)
        return diagonal.double() * v

    *_, space = islice(lanczos(product, torch.ones(300, dtype=torch.float64)), 120)
    q = torch.stack(seen)
    torch.testing.assert_close(q @ q.T, torch.eye(120, dtype=torch.float64), rtol=0, atol=1e-13)
    t = np.diag(space.diagonal) + np.diag(space.beside, 1) + np.diag(space.beside, -1)
    np.testing.assert_allclose((q * diagonal) @ q.T, t, atol=1e-8)


def test_orthogonalizing_in_chunks(monkeypatch):
    monkeypatch.setattr("trainflat.sharpness.lanczos._CHUNK", 7)
    basis = torch.linalg.qr(torch.randn(40, 5, dtype=torch.float64)).Q.T
    vector = torch.randn(40, dtype=torch.float64)
    expected = basis @ vector
    rest = vector - expected @ basis
    np.testing.assert_allclose(orthogonalize(vector, list(basis)), expected, atol=1e-14)
    torch.testing.assert_close(vector, rest, rtol=0, atol=1e-14)


def test_density_has_the_moments_of_the_matrix():
    """m nodes are exact for polynomials up to degree 2m - 1 of the probe; over probes, for the traces of powers."""
    h, probes = matrix(30), 150
    found = spectral_density(surface(START, 0.0, h), steps=3, probes=probes)
    assert all(w.sum() == pytest.approx(1, rel=1e-12) for w in found.weights)
    power = torch.eye(30, dtype=torch.float64)
    for degree in range(1, 6):
        power = power @ h
        moments = [(w * n**degree).sum() for n, w in zip(found.nodes, found.weights, strict=True)]
        error = np.std(moments, ddof=1) / probes**0.5
        assert abs(np.mean(moments) - power.trace().item() / 30) < 4 * error


def test_density_of_a_transformer_finds_its_ends(dense):
    expected = torch.linalg.eigvalsh(dense)
    found = spectral_density(bert_objective(4), steps=60, probes=2)
    figures = found.figures()
    assert figures["spectrum_lowest"] == pytest.approx(expected[0].item(), rel=1e-6)
    assert figures["spectrum_highest"] == pytest.approx(expected[-1].item(), rel=1e-6)
    negative = -expected[expected < 0].sum() / expected.abs().sum()
    assert figures["spectrum_negative_share"] == pytest.approx(negative.item(), abs=0.15)
    assert found.effort.products == 120


@pytest.mark.parametrize("diagonal", [[1.0, 2.0, 9.0] * 10, [3.0] * 30, [0.0] * 30])
def test_density_is_one(diagonal):
    found = spectral_density(surface(START, 0.0, torch.tensor(diagonal)), steps=10, probes=3)
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)
    assert (found.density >= 0).all()
    assert found.standard_error.shape == found.grid.shape == (512,)
    values = sorted(set(diagonal))
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        np.testing.assert_allclose(nodes[weights > 1e-9], values, atol=1e-9)


def test_one_probe_has_no_error():
    assert not spectral_density(surface(START, 0.0, matrix(30)), probes=1).standard_error.any()


def test_refusals():
    objective = surface(START, 0.0, matrix(30))
    with pytest.raises(InputError, match="k is the number of eigenvalues, a whole number of at least 1, got 0"):
        hessian_eigenvalues(objective, k=0)
    with pytest.raises(InputError, match="k is 31, but a Hessian of 30 weights has no more eigenvalues"):
        hessian_eigenvalues(objective, k=31, iterations=40)
    with pytest.raises(InputError, match=r"iterations is the dimensions of the Krylov space, .* at least 5, got 4"):
        hessian_eigenvalues(objective, k=5, iterations=4)
    assert len(hessian_eigenvalues(objective, k=2, iterations=40, tolerance=1e-15).values) == 2  # "at most" 40
    with pytest.raises(InputError, match=r"tolerance is the error allowed .* a number above 0, got 0"):
        hessian_eigenvalues(objective, tolerance=0)
    with pytest.raises(InputError, match=r"samples is the number of random vectors .* at least 2, got 1"):
        hessian_trace(objective, 1)
    for name in ("steps", "probes"):
        with pytest.raises(InputError, match=f"{name} is the number of .* whole number of at least 1, got 0"):
            spectral_density(objective, **{name: 0})
    with pytest.raises(InputError, match=r"grid is the number of points .* at least 2, got 1"):
        spectral_density(objective, grid=1)
    with pytest.raises(InputError, match=r"smoothing is the width .* above 0, got -1"):
        spectral_density(objective, smoothing=-1)
    for ask in (hessian_eigenvalues, hessian_trace, spectral_density):
        with pytest.raises(UnknownName, match=r"Hessian is called 'exat'. Did you mean 'exact'"):
            ask(objective, products="exat")
