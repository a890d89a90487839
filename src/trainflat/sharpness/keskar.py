"""Sharpness after Keskar et al. (ICLR 2017, arXiv:1609.04836), as Na, Mehta and Strubell (2022) report it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b

from trainflat.errors import InputError, UnknownName
from trainflat.sharpness.base import Objective
from trainflat.sharpness.measure import AT_THE_WEIGHTS, Measure, above_zero, at_least, finite
from trainflat.sharpness.passes import Effort
from trainflat.sharpness.subspace import Subspace
from trainflat.sharpness.vectors import Vector, flatten, unflatten

Space = Literal["subspace", "full"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeskarSharpness:
    """The highest loss found in a box around the weights."""

    sharpness: float  # phi, in percent of 1 + loss; at least 0
    loss: float  # f(w)
    highest: float  # the largest f met in the box
    epsilon: float
    space: Space
    dimension: int  # of the space that was searched
    iterations: int  # the budget
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Phi, under the name of its box."""
        return {f"keskar{'_full' if self.space == 'full' else ''}_{self.epsilon:g}": self.sharpness}


@dataclass(frozen=True)
class Keskar(Measure):
    """Highest loss in a box around the weights, relative to the loss (Keskar 2017)."""

    epsilon: float = 1e-3
    space: Space = "subspace"
    dimension: int = 100
    iterations: int = 10

    def __post_init__(self) -> None:
        above_zero("epsilon", self.epsilon, "the size of Keskar's box")
        if self.space not in get_args(Space):
            raise UnknownName("space for Keskar's box", self.space, get_args(Space))
        at_least(1, "dimension", self.dimension, "the number of random directions of Keskar's subspace")
        at_least(1, "iterations", self.iterations, "the budget of the search in Keskar's box")

    def take(self, objective: Objective, seed: int = 0) -> KeskarSharpness:
        full = self.space == "full"
        if not full and self.dimension > objective.size:
            raise InputError(
                f"dimension is {self.dimension}, but only {objective.size} weights may move. Take fewer directions."
            )
        with objective.taking(f"Keskar sharpness, epsilon {self.epsilon:g}", self.iterations + 1.5) as effort:
            search = _ascend_signs if full else _climb_subspace
            loss, highest = search(objective, self, seed)
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


def keskar_sharpness(
    objective: Objective,
    epsilon: float = 1e-3,
    *,
    space: Space = "subspace",
    dimension: int = 100,
    iterations: int = 10,
    seed: int = 0,
) -> KeskarSharpness:
    r"""How far the loss rises in a small box around the weights, in percent of 1 + loss.

    Metric 2.1 of the paper, A in R^{n x p} random with standard normal entries (their law is not stated there)::

        phi = 100 (max f(w + A z) - f(w)) / (1 + f(w))      |z_i| <= epsilon (|(A^+ w)_i| + 1)

    ``"subspace"`` searches p directions by L-BFGS-B, as the paper does; ``"full"`` takes A = I and searches by
    projected sign ascent in steps of 2.5 / iterations of the box, because L-BFGS-B would need many times the memory of
    the weights there. Both find a lower bound that rises with the budget: compare only numbers of the same budget, rows
    and p.

    Args:
        objective: Loss, weights and rows.
        epsilon: Size of the box; the papers use 5e-3, 1e-3 and 5e-4.
        space: ``"subspace"`` or ``"full"``.
        dimension: p, of the subspace; the paper's 100.
        iterations: Steps of the search. Sign ascent takes one gradient a step, L-BFGS-B about one and at most two.
        seed: Of A.

    Raises:
        InputError: a value that cannot be used, or a loss that is not finite.
        UnknownName: another space.

    Example:
        >>> linear = torch.nn.Linear(3, 1, bias=False)
        >>> rows = [{"x": torch.ones(1, 3)}]
        >>> objective = Objective(linear, rows, loss=lambda model, batch: 1 + model(batch["x"]).sum() * 0.0)
        >>> keskar_sharpness(objective, space="full").sharpness
        0.0
    """
    return Keskar(epsilon, space, dimension, iterations).take(objective, seed)


class _Box:
    """-f and its gradient over the box of the subspace, which is [-1, 1]^p here: in units of the box L-BFGS-B finds
    its first step whatever epsilon is."""

    def __init__(self, objective: Objective, options: Keskar, seed: int) -> None:
        self.objective = objective
        masked = any(kept is not None for kept in objective.kept)
        weights = objective.restrict([w.detach() for w in objective.weights])
        kept = flatten(objective.restrict([torch.ones_like(w, dtype=torch.bool) for w in weights])) if masked else None
        flat = flatten(weights)
        self.space = Subspace(len(flat), options.dimension, seed, flat, kept)
        self.limits = options.epsilon * (np.abs(self.space.coordinates(flat)) + 1)
        self.best = -np.inf
        self.origin = self._evaluate(self._zero)

    @cached_property
    def _zero(self) -> Array:
        return np.zeros(self.space.dimension)

    def __call__(self, y: Array) -> tuple[float, Array]:
        return self._evaluate(y) if y.any() else self.origin

    def _evaluate(self, y: Array) -> tuple[float, Array]:
        direction = unflatten(self.space.combine(self.limits * y), self.objective.weights)
        with self.objective.displaced(direction):
            value, gradient = self.objective.value_and_gradient()
        where = AT_THE_WEIGHTS if not y.any() else "in Keskar's box; take a smaller epsilon"
        self.best = max(self.best, finite(value, where))
        return -value, -self.limits * self.space.project(flatten(gradient))


def _climb_subspace(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """f(w) and the largest f met by L-BFGS-B."""
    box = _Box(objective, options, seed)
    value, gradient = box.origin
    # Where the gradient is exactly 0 no search would leave; a corner of the box is as good a start as any.
    start = np.zeros_like(gradient)
    if not gradient.any():
        start = np.random.default_rng(seed).choice([-1.0, 1.0], size=len(gradient))
    bounds = [(-1.0, 1.0)] * len(start)
    maxfun = 2 * options.iterations
    fmin_l_bfgs_b(box, start, bounds=bounds, factr=1e4, pgtol=1e-10, maxiter=options.iterations, maxfun=maxfun)
    return -value, box.best


def _ascend_signs(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """f(w) and the largest f met by projected sign ascent."""
    loss, gradient = objective.value_and_gradient()
    best = finite(loss, AT_THE_WEIGHTS)
    box = [options.epsilon * (w.detach().abs() + 1) for w in objective.weights]
    step = min(1.0, 2.5 / options.iterations)  # reaches a corner in four tenths of the budget
    moved: Vector = objective.zeros()
    for left in reversed(range(options.iterations)):
        if not any(g.any() for g in gradient):
            gradient = objective.random_signs(torch.Generator().manual_seed(seed))
        moved = [(z + step * b * g.sign()).clamp(-b, b) for z, b, g in zip(moved, box, gradient, strict=True)]
        with objective.displaced(moved):
            value, gradient = objective.value_and_gradient() if left else (objective.value(), gradient)
        best = max(best, finite(value, "in Keskar's box; take a smaller epsilon"))
    return loss, best
