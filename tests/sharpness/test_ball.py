"""Sharpness in a ball, under noise, and the slope, on functions where they are known."""

import pytest
import torch

from tests.support.objectives import bert_objective, flat, matrix, surface
from trainflat.core.errors import InputError
from trainflat.objective.vectors import norm, scaled
from trainflat.sharpness import Objective, ball_sharpness, gaussian_sharpness, gradient_norm

START = torch.linspace(-2, 2, 12)
G = torch.linspace(-1, 3, 12, dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 2, 5, 20])
@pytest.mark.parametrize("rho", [0.01, 0.5])
def test_ball_on_a_slope(rho, iterations):
    found = ball_sharpness(surface(START, G), rho, iterations=iterations)
    assert found.sharpness == pytest.approx(rho * G.norm().item(), rel=1e-12)
    assert (found.effort.gradients, found.effort.values) == (iterations, 1)


def test_adaptive_ball_on_a_slope():
    found = ball_sharpness(surface(START, G), 0.5, adaptive=True)
    assert found.sharpness == pytest.approx(0.5 * (START.double() * G).norm().item(), rel=1e-12)


def test_adaptive_ball_does_not_see_a_rescaling():
    """f(w) = g(cw) at w / c is the same model; the plain ball takes it for a sharper one."""
    adaptive, plain = [], []
    for c in (1.0, 10.0):
        objective = surface(START / c, c * G, c * c * torch.eye(12, dtype=torch.float64))
        adaptive.append(ball_sharpness(objective, 0.1, adaptive=True).sharpness)
        plain.append(ball_sharpness(objective, 0.1).sharpness)
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-6)
    assert plain[1] > 5 * plain[0]


def test_ball_around_a_minimum():
    """There the gradient is 0, and the highest place lies along the largest eigenvalue."""
    hessian = torch.diag(torch.tensor([1.0] * 11 + [4.0], dtype=torch.float64))
    found = ball_sharpness(surface(START, 0.0, hessian), 0.3, iterations=30)
    assert found.sharpness == pytest.approx(0.5 * 4 * 0.3**2, rel=1e-4)


def test_an_ascent_that_comes_back_to_where_it_began():
    """Beyond a summit half way to the rim the second step, as long as the radius, leads back to the weights exactly."""
    weight = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(weight.weight)
    summit = Objective(
        weight, [{"x": torch.ones(1)}], loss=lambda model, batch: 2 - (model.weight - 0.1).square().sum()
    )
    assert ball_sharpness(summit, 1.0, iterations=2).sharpness == 0
    assert ball_sharpness(summit, 0.15, iterations=2).sharpness == pytest.approx(0.1**2 - 0.05**2)


def test_ball_on_a_summit():
    assert ball_sharpness(surface(START, 0.0, -1.0), 0.3).sharpness == 0


def test_one_step_is_the_displacement_of_sam():
    objective = bert_objective(5)
    g = objective.gradient()
    with objective.displaced(scaled(g, 0.05 / norm(g))):
        risen = objective.value()
    assert ball_sharpness(objective, 0.05, iterations=1).sharpness == pytest.approx(risen - objective.value())


def test_more_steps_climb_higher():
    rises = [ball_sharpness(bert_objective(5), 0.5, iterations=n).sharpness for n in (1, 10)]
    assert rises[0] < rises[1]


def test_rows_with_displacements_of_their_own():
    """On slopes: the mean of the norms of the groups, against the norm of the mean."""
    objective = bert_objective(4, 3)
    rho = 1e-6
    groups = [(norm(part.gradient()), part.rows) for part in objective.split(2)]
    found = ball_sharpness(objective, rho, m=2, iterations=1)
    assert found.sharpness == pytest.approx(rho * sum(n * rows for n, rows in groups) / 7, rel=1e-4)
    assert found.loss == pytest.approx(objective.value())
    assert found.sharpness > ball_sharpness(objective, rho, iterations=1).sharpness
    assert (found.effort.gradients, found.effort.values, found.effort.rows) == (1, 1, 7)
    whole = ball_sharpness(bert_objective(7), rho, m=7)
    assert whole.sharpness == pytest.approx(ball_sharpness(bert_objective(7), rho).sharpness, rel=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_noise_on_a_quadratic(relative):
    """Mean and variance of a quadratic form under noise are known."""
    h, sigma, samples = matrix(12), 0.1, 1500
    found = gaussian_sharpness(surface(START, G, h), sigma, relative=relative, samples=samples)
    scale = sigma * (START.double().abs() if relative else torch.ones(12, dtype=torch.float64))
    h, g = scale[:, None] * h * scale, scale * G
    deviation = (h.square().sum() / 2 + g.square().sum()).sqrt().item()
    assert abs(found.sharpness - h.trace().item() / 2) < 4 * deviation / samples**0.5
    assert found.standard_error == pytest.approx(deviation / samples**0.5, rel=0.1)
    assert found.effort.values == samples + 1


def test_slope():
    assert gradient_norm(surface(START, G, matrix(12))).norm == pytest.approx(G.norm().item(), rel=1e-14)
    assert gradient_norm(surface(START, 0.0, matrix(12))).norm == 0
    kept = torch.tensor([[True, False], [False, True]])
    objective = surface(START, G, masks={"a": kept})
    mask = flat(objective.restrict([torch.ones_like(w) for w in objective.weights])).detach()
    assert gradient_norm(objective).norm == pytest.approx((mask * G).norm().item())


def test_names_tell_the_setting():
    objective = surface(START, G)
    assert list(ball_sharpness(objective, 0.05).figures()) == ["ball_0.05"]
    assert list(ball_sharpness(objective, 0.5, adaptive=True, m=2).figures()) == ["adaptive_ball_0.5_m2"]
    assert list(gaussian_sharpness(objective, 0.01).figures()) == ["gaussian_0.01", "gaussian_0.01_error"]
    assert next(iter(gaussian_sharpness(objective, 0.1, relative=True).figures())) == "relative_gaussian_0.1"


def test_refusals():
    objective = surface(START, G)
    for value in (0, -0.05, float("nan"), "big", True):
        with pytest.raises(InputError, match=r"rho is the radius of the ball, a number above 0, got"):
            ball_sharpness(objective, value)
        with pytest.raises(InputError, match=r"sigma is the standard deviation of the noise, a number above 0, got"):
            gaussian_sharpness(objective, value)
    with pytest.raises(InputError, match="adaptive is true or false, got 'yes'"):
        ball_sharpness(objective, adaptive="yes")
    with pytest.raises(InputError, match="relative is true or false, got 1"):
        gaussian_sharpness(objective, relative=1)
    with pytest.raises(InputError, match=r"m is the rows that share one displacement, a whole number of at least 1"):
        ball_sharpness(objective, m=0)
    with pytest.raises(InputError, match=r"iterations is the budget of the search in the ball"):
        ball_sharpness(objective, iterations=0)
    with pytest.raises(InputError, match=r"samples is how often noise is drawn, a whole number of at least 2, got 1"):
        gaussian_sharpness(objective, samples=1)
    broken = surface(START, G, level=float("nan"))
    for measure in (ball_sharpness, gaussian_sharpness, gradient_norm):
        with pytest.raises(InputError, match="the loss is nan at the weights themselves"):
            measure(broken)
    steep = surface(START, G, 1e308)
    with pytest.raises(InputError, match="in the ball; take a smaller rho"):
        ball_sharpness(steep, 1e9)
    with pytest.raises(InputError, match="under the noise; take a smaller sigma"):
        gaussian_sharpness(steep, 1e9)


def test_float32_agrees():
    precise = bert_objective(5)
    expected = ball_sharpness(precise).sharpness, gradient_norm(precise).norm
    coarse = Objective(precise.model.float(), precise.batches)
    found = ball_sharpness(coarse).sharpness, gradient_norm(coarse).norm
    assert found == pytest.approx(expected, rel=1e-3)
