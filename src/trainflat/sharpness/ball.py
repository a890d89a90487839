"""Measures the highest loss in a ball around the weights, which SAM minimises (Foret et al. 2021; Kwon et al. 2021)."""

from dataclasses import dataclass
from typing import Annotated

import torch

from trainflat.core.foreach import foreach
from trainflat.core.settings import Maybe, Truth
from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector, norm, scaled
from trainflat.sharpness.measure import Measure, above_zero, at_least, projected_ascent, times


@dataclass(frozen=True)
class BallSharpness:
    """Holds the rise of the loss in a ball, and the options of the search."""

    sharpness: float  # max f(w + e) - f(w), in units of the loss; at least 0
    loss: float  # f(w)
    rho: float
    adaptive: bool
    m: int | None
    iterations: int
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns the rise, named by type and radius of the ball."""
        return {_name(self.rho, self.adaptive, self.m): self.sharpness}


class Ball(Measure):
    """Highest loss in a ball around the weights, less the loss there (Foret 2021)."""

    rho: Annotated[float, above_zero("the radius of the ball")] = 0.05
    adaptive: Annotated[bool, Truth()] = False
    m: Annotated[int | None, Maybe(at_least(1, "the rows that share one displacement"))] = None
    iterations: Annotated[int, at_least(1, "the budget of the search in the ball")] = 10

    def names(self) -> list[str]:
        return [_name(self.rho, self.adaptive, self.m)]

    def passes(self) -> dict[Kind, float]:
        return {"values": 1, "gradients": self.iterations}

    def compute(self, objective: Objective, seed: int = 0) -> BallSharpness:
        self.check(objective, seed)
        # Batches are weighted by their rows, so that the mean is over rows however they are divided.
        with objective.taking(f"sharpness in a ball of {self.rho:g}", sum(self.passes().values())) as effort:
            loss = rise = 0.0
            for part in objective.split(self.m) if self.m else [objective]:
                here, highest = self._climb(part, seed)
                loss += here * part.rows / objective.rows
                rise += (highest - here) * part.rows / objective.rows
            return BallSharpness(rise, loss, self.rho, self.adaptive, self.m, self.iterations, seed, effort())

    def _climb(self, objective: Objective, seed: int) -> tuple[float, float]:
        """Computes f(w) and the highest f that the ascent meets; positions are e / (rho T), in the unit ball."""
        scales = [w.detach().abs() for w in objective.weights] if self.adaptive else None

        def advance(unit: Vector, gradient: Vector, step: float) -> Vector:
            uphill = times(gradient, scales)
            if norm(uphill) == 0:  # at a flat point or a saddle any direction is as good
                uphill = objective.random_direction(torch.Generator().manual_seed(seed))
            foreach("add_", unit, scaled(uphill, step / norm(uphill)))
            return scaled(unit, 1 / max(1.0, norm(unit)))

        where = "in the ball; take a smaller rho"
        return projected_ascent(objective, self.iterations, advance, where=where, scale=self.rho, scales=scales)


def _name(rho: float, adaptive: bool, m: int | None) -> str:
    name = f"{'adaptive_' if adaptive else ''}ball_{rho:g}"
    return f"{name}_m{m}" if m else name


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

    by projected gradient ascent with step sizes that fall linearly from 2 rho. One step gives SAM's own estimate,
    e = rho g / ||g||. The result is a lower bound, which rises with the budget. The optimizer of Kwon et al. adds
    eta = 0.01 to T; without it an adaptive ball has no extent where w = 0, and pruned weights stay 0.

    Args:
        objective: Loss, weights and rows.
        rho: Radius, as an L2 norm over all weights together.
        adaptive: Whether distances are relative to each weight, so that the measure does not change when layers are
            rescaled without changing the function.
        m: Rows that share one displacement; the result is averaged (m-sharpness). By default all rows share one.
        iterations: Gradient steps, at the cost of one gradient each.
        seed: Seed of the direction taken where the gradient is exactly 0.

    Raises:
        InputError: a value that cannot be used, or a loss that is not finite.
    """
    return Ball(rho, adaptive, m, iterations).compute(objective, seed)
