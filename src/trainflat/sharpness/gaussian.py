"""Measures the expected loss under Gaussian noise on the weights (Neyshabur et al. 2017, arXiv:1706.08947)."""

import math
import statistics
from dataclasses import dataclass
from typing import Annotated

import torch

from trainflat.core.foreach import foreach
from trainflat.core.settings import Truth
from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.sharpness.measure import AT_THE_WEIGHTS, Measure, above_zero, at_least, finite


@dataclass(frozen=True)
class GaussianSharpness:
    """Holds the mean rise of the loss under noise, and the options of the estimate."""

    sharpness: float  # mean of f(w + s) - f(w), in units of the loss
    standard_error: float  # of that mean
    loss: float  # f(w)
    sigma: float
    relative: bool
    samples: int
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns mean and standard error, named by type and size of the noise."""
        mean, error = _names(self.sigma, self.relative)
        return {mean: self.sharpness, error: self.standard_error}


class Gaussian(Measure):
    """Average rise of the loss under Gaussian noise on the weights (Neyshabur 2017)."""

    sigma: Annotated[float, above_zero("the standard deviation of the noise")] = 0.01
    relative: Annotated[bool, Truth()] = False
    samples: Annotated[int, at_least(2, "how often noise is drawn")] = 10

    def names(self) -> list[str]:
        return list(_names(self.sigma, self.relative))

    def passes(self) -> dict[Kind, float]:
        return {"values": self.samples + 1}

    def compute(self, objective: Objective, seed: int = 0) -> GaussianSharpness:
        self.check(objective, seed)
        generator = torch.Generator().manual_seed(seed)
        with objective.taking(f"sharpness under noise of {self.sigma:g}", sum(self.passes().values())) as effort:
            loss = finite(objective.value(), AT_THE_WEIGHTS)
            # Every draw moves all weights by a norm of about sigma sqrt(n): a large sigma leaves the basin.
            rises = [self._noisy(objective, generator) - loss for _ in range(self.samples)]
            mean, error = statistics.fmean(rises), statistics.stdev(rises) / math.sqrt(self.samples)
            return GaussianSharpness(mean, error, loss, self.sigma, self.relative, self.samples, seed, effort())

    def _noisy(self, objective: Objective, generator: torch.Generator) -> float:
        noise = objective.random_direction(generator)
        if self.relative:
            foreach("mul_", noise, [w.detach().abs() for w in objective.weights])
        with objective.displaced(noise, self.sigma):
            return finite(objective.value(), "under the noise; take a smaller sigma")


def _names(sigma: float, relative: bool) -> tuple[str, str]:
    name = f"{'relative_' if relative else ''}gaussian_{sigma:g}"
    return name, f"{name}_error"


def gaussian_sharpness(
    objective: Objective, sigma: float = 0.01, *, relative: bool = False, samples: int = 10, seed: int = 0
) -> GaussianSharpness:
    r"""Measures the average rise of the loss under Gaussian noise, with its standard error::

        E f(w + s) - f(w)      s_i ~ N(0, sigma^2),  or  N(0, sigma^2 w_i^2) if relative

    To second order the rise is :math:`\sigma^2 / 2` times the trace of the Hessian. It may be negative away from a
    minimum. Relative noise leaves pruned weights at 0, and the measure does not change when layers are rescaled without
    changing the function.

    Args:
        objective: Loss, weights and rows.
        sigma: Standard deviation of the noise, in units of a weight or, if ``relative``, of its absolute value.
        relative: Whether the noise is proportional to each weight.
        samples: Draws, at least 2, at the cost of one forward pass each; the standard error falls as 1 / sqrt(samples).
        seed: Seed of the draws.

    Raises:
        InputError: a value that cannot be used, or a loss that is not finite.
    """
    return Gaussian(sigma, relative, samples).compute(objective, seed)
