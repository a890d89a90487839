"""Measures sharpness after Keskar et al. (ICLR 2017, arXiv:1609.04836), as Na, Mehta and Strubell (2022) report it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector, flatten, unflatten
from trainflat.sharpness.measure import AT_THE_WEIGHTS, Measure, above_zero, at_least, finite, shrinking_steps
from trainflat.sharpness.subspace import Subspace

Space = Literal["subspace", "full"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeskarSharpness:
    """Holds the highest loss found in a box around the weights."""

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
        """Returns phi by the name of its box."""
        return {_name(self.epsilon, self.space): self.sharpness}


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
        about, most = self.passes()["gradients"], 1 + 2 * self.iterations  # L-BFGS-B asks as often as it likes
        looks = [made + looks * (each["gradients"] + 2 * product) for looks in (about, most)]
        return looks[0], looks[1]

    def take(self, objective: Objective, seed: int = 0) -> KeskarSharpness:
        self.check(objective, seed)
        full = self.space == "full"
        with objective.taking(f"Keskar sharpness, epsilon {self.epsilon:g}", sum(self.passes().values())) as effort:
            search = _ascend_signs if full else _climb_subspace
            loss, highest = search(objective, self, seed)
            if loss <= -1:
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

    Metric 2.1 of the paper, A in R^{n x p} random with standard normal entries (their law is not stated there)::

        phi = 100 (max f(w + A z) - f(w)) / (1 + f(w))      |z_i| <= epsilon (|(A^+ w)_i| + 1)

    ``"subspace"`` searches p directions by L-BFGS-B, as the paper does; ``"full"`` takes A = I and searches by
    projected sign ascent, with steps that shrink from the width of the box linearly, because L-BFGS-B would
    need many times the memory of the weights there. Both find a lower bound that rises with the budget: compare only
    numbers of the same budget, rows and p.

    Args:
        objective: Loss, weights and rows.
        epsilon: Size of the box; the papers use 5e-3, 1e-3 and 5e-4.
        space: ``"subspace"`` or ``"full"``.
        dimension: p, of the subspace; the paper's 100.
        iterations: Steps of the search, of one gradient each, for L-BFGS-B of one to two; one more comes before.
        seed: Of A.

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
    return Keskar(epsilon, space, dimension, iterations).take(objective, seed)


class _BudgetSpent(Exception):
    """Ends L-BFGS-B when it asks for the loss once more than allowed."""


class _Box:
    """Maps the box of the subspace to [-1, 1]^p, and gives a minimiser -f and its gradient."""

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
        # L-BFGS-B's first step is the negative gradient, cut at the box. Steepened like this it reaches the corner in
        # all coordinates but the flattest; as it comes, it would hardly leave the middle within the budget.
        self.flat = not slope.any()
        self.steepness = 1.0 if self.flat else 100 / max(float(np.abs(slope).max()), 1e-99)
        self.origin = -self.loss * self.steepness, -slope * self.steepness

    def __call__(self, y: Array) -> tuple[float, Array]:
        if not y.any():
            return self.origin
        if not self.left:
            raise _BudgetSpent
        self.left -= 1
        value, slope = self._look(y, "in Keskar's box; take a smaller epsilon")
        self.best = max(self.best, value)
        return -value * self.steepness, -slope * self.steepness

    def _look(self, y: Array, where: str) -> tuple[float, Array]:
        direction = unflatten(self.space.combine(self.limits * y), self.objective.weights)
        with self.objective.displaced(direction):
            value, gradient = self.objective.value_and_gradient()
        return finite(value, where), self.limits * self.space.project(flatten(gradient))


def _climb_subspace(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """Returns f(w) and the largest f that L-BFGS-B met."""
    box = _Box(objective, options, seed)
    start = np.zeros(options.dimension)
    if box.flat:  # no search would leave; a corner is as good a start as any
        start = np.random.default_rng(seed).choice([-1.0, 1.0], size=options.dimension)
    bounds = [(-1.0, 1.0)] * options.dimension
    with suppress(_BudgetSpent):
        fmin_l_bfgs_b(box, start, bounds=bounds, factr=1e4, pgtol=1e-10, maxiter=options.iterations)
    return box.loss, box.best


def _ascend_signs(objective: Objective, options: Keskar, seed: int) -> tuple[float, float]:
    """Returns f(w) and the largest f that projected sign ascent met."""
    loss, gradient = objective.value_and_gradient()
    best = finite(loss, AT_THE_WEIGHTS)
    box = [options.epsilon * (w.detach().abs() + 1) for w in objective.weights]
    moved: Vector = objective.zeros()
    for left, step in zip(reversed(range(options.iterations)), shrinking_steps(options.iterations), strict=True):
        if not any(g.any() for g in gradient):
            gradient = objective.random_signs(torch.Generator().manual_seed(seed))
        moved = [(z + step * b * g.sign()).clamp(-b, b) for z, b, g in zip(moved, box, gradient, strict=True)]
        with objective.displaced(moved):
            value, gradient = objective.value_and_gradient() if left else (objective.value(), gradient)
        best = max(best, finite(value, "in Keskar's box; take a smaller epsilon"))
    return loss, best
