"""Measures sharpness after Keskar et al. (ICLR 2017, arXiv:1609.04836), as Na, Mehta and Strubell (2022) report it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.settings import Word
from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector, flatten, unflatten
from trainflat.sharpness.measure import (
    AT_THE_WEIGHTS,
    Measure,
    above_zero,
    at_least,
    finite,
    projected_ascent,
)
from trainflat.sharpness.subspace import Subspace

Space = Literal["subspace", "full"]
Array = NDArray[np.float64]
_IN_THE_BOX = "in Keskar's box; take a smaller epsilon"


@dataclass(frozen=True)
class KeskarSharpness:
    """Holds the highest loss found in a box around the weights, and the options of the search."""

    sharpness: float  # phi, in percent of 1 + loss; at least 0
    loss: float  # f(w)
    highest: float  # the largest f met in the box
    epsilon: float
    space: Space
    dimension: int  # of the searched space: p, or the number of weights
    iterations: int  # budget of the search
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns phi, named by space and size of the box."""
        return {_name(self.epsilon, self.space): self.sharpness}


class Keskar(Measure):
    """Highest loss in a box around the weights, relative to the loss (Keskar 2017)."""

    epsilon: Annotated[float, above_zero("the size of Keskar's box")] = 1e-3
    space: Annotated[Space, Word(get_args(Space), "space for Keskar's box")] = "subspace"
    dimension: Annotated[int, at_least(1, "the number of random directions of Keskar's subspace")] = 100
    iterations: Annotated[int, at_least(1, "the budget of the search in Keskar's box")] = 10

    def names(self) -> list[str]:
        return [_name(self.epsilon, self.space)]

    def fits(self, weights: int) -> None:
        super().fits(weights)
        if self.space == "subspace" and self.dimension > weights:
            raise InputError(
                f"dimension is {self.dimension}, but only {plural(weights, 'weight')} may move. Take fewer directions."
            )

    def passes(self) -> dict[Kind, float]:
        return (
            {"gradients": self.iterations, "values": 1}
            if self.space == "full"
            else {"gradients": self.iterations + 1.5}
        )

    def seconds(self, objective: Objective, each: Mapping[Kind, float]) -> tuple[float, float]:
        if self.space == "full":
            return super().seconds(objective, each)
        entries = sum(w.numel() for w in objective.weights)
        made, product = Subspace.seconds(entries, self.dimension, objective.weights[0].detach())
        about, most = self.passes()["gradients"], 1 + 2 * self.iterations  # a line search may take several gradients
        looks = [made + looks * (each["gradients"] + 2 * product) for looks in (about, most)]
        return looks[0], looks[1]

    def compute(self, objective: Objective, seed: int = 0) -> KeskarSharpness:
        self.check(objective, seed)
        full = self.space == "full"
        with objective.taking(f"Keskar sharpness, epsilon {self.epsilon:g}", sum(self.passes().values())) as effort:
            search = _ascend_signs if full else _climb_subspace
            loss, highest = search(objective, self, seed)
            if loss <= -1:  # phi divides by 1 + loss: the paper has losses of classifiers, which are not negative
                raise InputError(
                    f"Keskar's sharpness is a share of 1 + loss, and the loss is {loss:g}. Give one above -1."
                )
            return KeskarSharpness(
                sharpness=100 * (highest - loss) / (1 + loss),
                loss=loss,
                highest=highest,
                epsilon=self.epsilon,
                space=self.space,
                dimension=objective.size if full else self.dimension,
                iterations=self.iterations,
                seed=seed,
                effort=effort(),
            )


def _name(epsilon: float, space: Space) -> str:
    return f"keskar{'_full' if space == 'full' else ''}_{epsilon:g}"


def keskar_sharpness(
    objective: Objective,
    epsilon: float = 1e-3,
    *,
    space: Space = "subspace",
    dimension: int = 100,
    iterations: int = 10,
    seed: int = 0,
) -> KeskarSharpness:
    r"""Measures the highest rise of the loss in a small box around the weights, in percent of 1 + loss.

    Metric 2.1 of the paper, with A in R^{n x p} of standard normal entries (the paper says only that it is random)::

        phi = 100 (max f(w + A z) - f(w)) / (1 + f(w))      |z_i| <= epsilon (|(A^+ w)_i| + 1)

    ``"subspace"`` searches p directions by L-BFGS-B, as the paper does. ``"full"`` takes A = I and searches by
    projected sign ascent, with step sizes that fall linearly from the width of the box; a departure, since L-BFGS-B
    needs many copies of the searched variables. Both find a lower bound that rises with the budget: compare only
    results of the same budget, rows and p.

    Args:
        objective: Loss, weights and rows.
        epsilon: Size of the box; the papers use 5e-3, 1e-3 and 5e-4.
        space: ``"subspace"`` or ``"full"``.
        dimension: p, the dimension of the subspace; 100 in Keskar et al., not stated in Na et al.
        iterations: Steps of the search, after a first gradient; each takes one gradient, or one to two in L-BFGS-B.
        seed: Seed of A.

    Raises:
        InputError: a value that cannot be used, or a loss that is not finite or not above -1.
        UnknownName: another space.

    Example:
        >>> linear = torch.nn.Linear(3, 1, bias=False)
        >>> rows = [{"x": torch.ones(1, 3)}]
        >>> objective = Objective(linear, rows, loss=lambda model, batch: 1 + model(batch["x"]).sum() * 0.0)
        >>> keskar_sharpness(objective, space="full").sharpness
        0.0
    """
    return Keskar(epsilon, space, dimension, iterations).compute(objective, seed)


class _BudgetSpent(Exception):
    """Ends L-BFGS-B once the gradients are spent: its ``maxfun`` is checked between iterations only."""


class _Box:
    """Computes -f and its gradient for a minimizer, as a function of y in [-1, 1]^p, with z = limits * y."""

    def __init__(self, objective: Objective, options: Keskar, seed: int) -> None:
        self.objective = objective
        weights = objective.restrict([w.detach() for w in objective.weights])
        flat = flatten(weights)
        masked = any(kept is not None for kept in objective.kept)
        kept = flatten(objective.restrict([torch.ones_like(w, dtype=torch.bool) for w in weights])) if masked else None
        self.space = Subspace(len(flat), options.dimension, seed, flat, kept)
        self.limits = options.epsilon * (np.abs(self.space.coordinates(flat)) + 1)
        self.left = 2 * options.iterations
        self.loss, slope = self._look(np.zeros(options.dimension), AT_THE_WEIGHTS)
        self.best = self.loss
        # L-BFGS-B begins with a step along the negative gradient, projected onto the box. Scaled to a largest entry of
        # 100, it reaches the boundary in all coordinates but the flattest; unscaled, it would hardly leave the center
        # within a budget of a few iterations.
        self.flat = not slope.any()
        self.steepness = 1.0 if self.flat else 100 / max(float(np.abs(slope).max()), 1e-99)
        self.origin = -self.loss * self.steepness, -slope * self.steepness

    def __call__(self, y: Array) -> tuple[float, Array]:
        if not y.any():  # the search begins there, and the constructor has spent that gradient
            return self.origin
        if not self.left:
            raise _BudgetSpent
        self.left -= 1
        value, slope = self._look(y, _IN_THE_BOX)
        self.best = max(self.best, value)
        return -value * self.steepness, -slope * self.steepness

    def _look(self, y: Array, where: str) -> tuple[float, Array]:
        direction = unflatten(self.space.combine(self.limits * y), self.objective.weights)
        with self.objective.displaced(direction):
            value, gradient = self.objective.value_and_gradient()
        return finite(value, where), self.limits * self.space.project(flatten(gradient))


def _climb_subspace(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """Computes f(w) and the highest f that L-BFGS-B meets."""
    box = _Box(objective, options, seed)
    start = np.zeros(options.dimension)
    if box.flat:  # a zero gradient ends the search where it begins; any corner is as good a start
        start = np.random.default_rng(seed).choice([-1.0, 1.0], size=options.dimension)
    bounds = [(-1.0, 1.0)] * options.dimension
    with suppress(_BudgetSpent):
        fmin_l_bfgs_b(box, start, bounds=bounds, factr=1e4, pgtol=1e-10, maxiter=options.iterations)
    return box.loss, box.best


def _ascend_signs(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """Computes f(w) and the highest f that projected sign ascent meets."""
    # Signs, because the box is the ball of a maximum norm: they are the steepest direction there.
    box = [options.epsilon * (w.detach().abs() + 1) for w in objective.weights]

    def advance(moved: Vector, gradient: Vector, step: float) -> Vector:
        if not any(g.any() for g in gradient):  # at a flat point any corner is as good
            gradient = objective.random_signs(torch.Generator().manual_seed(seed))
        return [(z + step * b * g.sign()).clamp(-b, b) for z, b, g in zip(moved, box, gradient, strict=True)]

    return projected_ascent(objective, options.iterations, advance, where=_IN_THE_BOX)
