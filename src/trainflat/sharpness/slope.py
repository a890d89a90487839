"""Measures the norm of the gradient: 0 at a minimum, and to first order the rise in a ball per radius."""

from dataclasses import dataclass

from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import norm
from trainflat.sharpness.measure import AT_THE_WEIGHTS, Measure, finite


@dataclass(frozen=True)
class Slope:
    """Holds the norm of the gradient and the loss."""

    norm: float  # 2-norm over all weights together, in units of loss per weight
    loss: float
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns the norm."""
        return {"gradient_norm": self.norm}


class GradientNorm(Measure):
    """Norm of the gradient of the loss over all rows."""

    def names(self) -> list[str]:
        return ["gradient_norm"]

    def passes(self) -> dict[Kind, float]:
        return {"gradients": 1}

    def compute(self, objective: Objective, seed: int = 0) -> Slope:
        self.check(objective, seed)
        with objective.taking("gradient norm", 1) as effort:
            loss, gradient = objective.value_and_gradient()
            return Slope(norm(gradient), finite(loss, AT_THE_WEIGHTS), effort())


def gradient_norm(objective: Objective) -> Slope:
    """Computes the 2-norm of the gradient of the mean loss over all rows, over all weights together.

    Raises:
        InputError: the loss is not finite.
    """
    return GradientNorm().compute(objective)
