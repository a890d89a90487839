"""Measures the highest loss in a ball around the weights, which SAM minimises (Foret et al. 2021; Kwon et al. 2021)."""

from dataclasses import dataclass

import torch

from trainflat.core.foreach import foreach
from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector, norm, scaled
from trainflat.sharpness.measure import (
    AT_THE_WEIGHTS,
    Measure,
    above_zero,
    at_least,
    finite,
    shrinking_steps,
    yes_or_no,
)


@dataclass(frozen=True)
class BallSharpness:
    """Holds the rise of the loss in a ball."""

    sharpness: float  # max f(w + e) - f(w), in units of the loss; at least 0
    loss: float  # f(w)
    rho: float
    adaptive: bool
    m: int | None
    iterations: int
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns the rise by the name of its ball."""
        return {_name(self.rho, self.adaptive, self.m): self.sharpness}


@dataclass(frozen=True)
class Ball(Measure):
    """Highest loss in a ball around the weights, less the loss there (Foret 2021)."""

    rho: float = 0.05
    adaptive: bool = False
    m: int | None = None
    iterations: int = 10

    def __post_init__(self) -> None:
        above_zero("rho", self.rho, "the radius of the ball")
        yes_or_no("adaptive", self.adaptive)
        at_least(1, "iterations", self.iterations, "the budget of the search in the ball")
        if self.m is not None:
            at_least(1, "m", self.m, "the rows that share one displacement")

    def names(self) -> list[str]:
        return [_name(self.rho, self.adaptive, self.m)]

    def passes(self) -> dict[Kind, float]:
        return {"values": 1, "gradients": self.iterations}

    def take(self, objective: Objective, seed: int = 0) -> BallSharpness:
        self.check(objective, seed)
        with objective.taking(f"sharpness in a ball of {self.rho:g}", sum(self.passes().values())) as effort:
            loss = rise = 0.0
            for part in objective.split(self.m) if self.m else [objective]:
                here, highest = self._climb(part, seed)
                loss += here * part.rows / objective.rows
                rise += (highest - here) * part.rows / objective.rows
            return BallSharpness(rise, loss, self.rho, self.adaptive, self.m, self.iterations, seed, effort())

    def _climb(self, objective: Objective, seed: int) -> tuple[float, float]:
        """Returns f(w) and the largest f met by projected gradient ascent in units of the scales T."""
        loss, gradient = objective.value_and_gradient()
        best = finite(loss, AT_THE_WEIGHTS)
        scales = [w.detach().abs() for w in objective.weights] if self.adaptive else None
        unit: Vector = objective.zeros()  # e / (rho T)
        for left, step in zip(reversed(range(self.iterations)), shrinking_steps(self.iterations), strict=True):
            uphill = _times(gradient, scales)
            if norm(uphill) == 0:  # a flat point or a saddle: any direction
                uphill = objective.random_direction(torch.Generator().manual_seed(seed))
            foreach("add_", unit, scaled(uphill, step / norm(uphill)))
            unit = scaled(unit, 1 / max(1.0, norm(unit)))
            with objective.displaced(_times(unit, scales), self.rho):
                value, gradient = objective.value_and_gradient() if left else (objective.value(), gradient)
            best = max(best, finite(value, "in the ball; take a smaller rho"))
        return loss, best


def _name(rho: float, adaptive: bool, m: int | None) -> str:
    name = f"{'adaptive_' if adaptive else ''}ball_{rho:g}"
    return f"{name}_m{m}" if m else name


def _times(vector: Vector, scales: Vector | None) -> Vector:
    return vector if scales is None else [x * t for x, t in zip(vector, scales, strict=True)]


def ball_sharpness(
    objective: Objective,
    rho: float = 0.05,
    *,
    adaptive: bool = False,
    m: int | None = None,
    iterations: int = 10,
    seed: int = 0,
) -> BallSharpness:
    r"""Measures the highest rise of the loss within the distance rho of the weights.

    Equation (1) of Foret et al.; with ``adaptive`` definition 1 of Kwon et al. (arXiv:2102.11600)::

        max f(w + e) - f(w)      ||e||_2 <= rho,  or  ||T^-1 e||_2 <= rho  with T = |w|

    by projected gradient ascent, with steps that shrink from 2 rho linearly. One step is SAM's own estimate,
    e = rho g / ||g||. A lower bound that rises with the budget. Where |w| = 0 an adaptive ball has
    no extent, so a pruned weight stays.

    Args:
        objective: Loss, weights and rows.
        rho: Radius, a norm over all weights together.
        adaptive: Measures distances relative to each weight, so that rescaling layers changes nothing.
        m: Gives every ``m`` rows a displacement of their own and averages (m-sharpness); all rows share one if None.
        iterations: Gradient steps; each costs one gradient.
        seed: Of the direction taken where the gradient is exactly 0.

    Raises:
        InputError: a value that cannot be used, or a loss that is not finite.
    """
    return Ball(rho, adaptive, m, iterations).take(objective, seed)
