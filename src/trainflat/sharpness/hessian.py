"""Estimates the largest eigenvalues of the Hessian by Lanczos, and its trace by Hutchinson's estimator."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective, ProductMethod
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import dot, flatten, unflatten
from trainflat.sharpness.lanczos import Tridiagonal, lanczos
from trainflat.sharpness.measure import (
    AT_THE_WEIGHTS,
    Measure,
    ProductOption,
    above_zero,
    at_least,
    finite,
    product_passes,
)

_DIMENSIONS = "the dimensions of the Krylov space"
_TRACE_NAMES = ("trace", "trace_error")


@dataclass(frozen=True)
class HessianEigenvalues:
    """Holds the eigenvalues at the upper end of the spectrum."""

    values: tuple[float, ...]  # descending, in units of loss per squared weight
    errors: tuple[float, ...]  # residual norms: some eigenvalue lies within this distance of each value
    lowest: float  # smallest Ritz value, an upper bound of the smallest eigenvalue
    converged: bool  # whether all errors are within the tolerance
    iterations: int  # products used
    tolerance: float
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns the values, numbered from 1, and the lowest."""
        return dict(zip(_eigenvalue_names(len(self.values)), (*self.values, self.lowest), strict=True))


@dataclass(frozen=True)
class HessianTrace:
    """Holds the estimated trace, the sum of all eigenvalues."""

    trace: float  # in units of loss per squared weight
    standard_error: float
    samples: int
    seed: int
    effort: Effort

    def figures(self) -> dict[str, float]:
        """Returns estimate and standard error."""
        return dict(zip(_TRACE_NAMES, (self.trace, self.standard_error), strict=True))


@dataclass(frozen=True)
class HessianSummary:
    """Holds the largest eigenvalues of a Hessian and the sum of all."""

    eigenvalues: HessianEigenvalues
    trace: HessianTrace

    @property
    def effort(self) -> Effort:
        """The effort of both estimates together."""
        return self.eigenvalues.effort + self.trace.effort

    def figures(self) -> dict[str, float]:
        """Returns the eigenvalues, the lowest, the trace and its standard error."""
        return self.eigenvalues.figures() | self.trace.figures()


class Hessian(Measure):
    """Largest eigenvalues (Lanczos) and trace (Hutchinson) of the Hessian."""

    k: Annotated[int, at_least(1, "the number of eigenvalues")] = 1
    iterations: Annotated[int, at_least(1, _DIMENSIONS)] = 30
    tolerance: Annotated[float, above_zero("the error allowed to an eigenvalue, as a share of the largest")] = 1e-3
    samples: Annotated[int, at_least(2, "the number of random vectors that estimate the trace")] = 20
    products: ProductOption = "exact"

    @classmethod
    def resolve(cls, k: int, iterations: int, **options: Any) -> Mapping[str, Any]:
        """Raises InputError for fewer iterations than eigenvalues."""
        at_least(k, _DIMENSIONS).read("iterations", iterations)
        return {}

    def names(self) -> list[str]:
        return [*_eigenvalue_names(self.k), *_TRACE_NAMES]

    def fits(self, weights: int) -> None:
        super().fits(weights)
        if self.k > weights:
            raise InputError(f"k is {self.k}, but a Hessian of {plural(weights, 'weight')} has no more eigenvalues.")

    def passes(self) -> dict[Kind, float]:
        return product_passes(self.products, self.iterations + self.samples)

    def compute(self, objective: Objective, seed: int = 0) -> HessianSummary:
        return HessianSummary(self.eigenvalues(objective, seed), self.trace(objective, seed))

    def eigenvalues(self, objective: Objective, seed: int = 0) -> HessianEigenvalues:
        """Estimates the largest eigenvalues: the first half of :meth:`compute`."""
        self.check(objective, seed)
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            return flatten(objective.random_direction(generator))

        with objective.taking("Hessian eigenvalues", self.iterations) as effort:
            with objective.products(self.products) as product:
                spaces = lanczos(lambda v: flatten(product(unflatten(v, objective.weights))), draw(), draw)
                for space in islice(spaces, self.iterations):
                    values, errors, lowest = _upper(space, self.k)
                    scale = max(abs(values[0]), abs(lowest))  # at a saddle the lowest may be the larger one
                    converged = len(values) == self.k and max(errors) <= self.tolerance * scale
                    # A Krylov space holds one eigenvector per eigenvalue. Once it is invariant (rest 0), further copies
                    # of a multiple eigenvalue show only after a restart, and they count among the k largest.
                    if converged and (space.rest > 0 or self.k == 1):
                        break
            used = len(space.diagonal)
            return HessianEigenvalues(values, errors, lowest, converged, used, self.tolerance, seed, effort())

    def trace(self, objective: Objective, seed: int = 0) -> HessianTrace:
        """Estimates the trace: the second half of :meth:`compute`."""
        self.check(objective, seed)
        generator = torch.Generator().manual_seed(seed)
        with objective.taking("Hessian trace", self.samples) as effort:
            forms = []
            with objective.products(self.products) as product:
                for _ in range(self.samples):
                    signs = objective.random_signs(generator)  # Rademacher: v_i² = 1 leaves the diagonal without noise
                    forms.append(finite(dot(signs, product(signs)), AT_THE_WEIGHTS, "Hessian's product with a vector"))
            error = statistics.stdev(forms) / math.sqrt(self.samples)
            return HessianTrace(statistics.fmean(forms), error, self.samples, seed, effort())


def _eigenvalue_names(k: int) -> list[str]:
    return [*(f"eigenvalue_{i}" for i in range(1, k + 1)), "eigenvalue_lowest"]


def _upper(space: Tridiagonal, k: int) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Returns the ``k`` largest Ritz values in descending order, their error bounds, and the smallest Ritz value."""
    values, vectors = space.ritz()
    errors = space.rest * np.abs(vectors[-1])  # ||H x - theta x|| = beta_m |s_m| (Paige)
    top = slice(None, -k - 1, -1)
    return tuple(map(float, values[top])), tuple(map(float, errors[top])), float(values[0])


def hessian_eigenvalues(
    objective: Objective,
    k: int = 1,
    *,
    iterations: int = 30,
    tolerance: float = 1e-3,
    seed: int = 0,
    products: ProductMethod = "exact",
) -> HessianEigenvalues:
    r"""Estimates the ``k`` largest eigenvalues of the Hessian of the mean loss over all rows.

    Lanczos with full reorthogonalization, which converges to both ends of the spectrum much faster than power
    iteration. It ends once the residual :math:`\|H x - \theta x\|` of each of the k largest Ritz pairs is at most
    ``tolerance`` times the largest absolute Ritz value. An eigenvalue that is exactly multiple may be found only once.
    Memory: every iteration holds one more copy of the weights.

    Args:
        objective: Loss, weights and rows.
        k: Number of eigenvalues.
        iterations: Most products to spend.
        tolerance: Allowed error, as a share of the largest absolute eigenvalue.
        seed: Seed of the first vector.
        products: ``"exact"``, or ``"differences"`` of gradients if memory is short: see :meth:`Objective.products`.

    Raises:
        InputError: a value that cannot be used, or a Hessian that is not finite.
        UnknownName: another kind of product.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> rows = [{"x": torch.tensor([[1.0, 3.0]])}]
        >>> bowl = Objective(layer, rows, loss=lambda model, batch: (model.weight.square() * batch["x"]).sum())
        >>> [round(value, 4) for value in hessian_eigenvalues(bowl, k=2).values]
        [6.0, 2.0]
    """
    return Hessian(k, iterations, tolerance, products=products).eigenvalues(objective, seed)


def hessian_trace(
    objective: Objective, samples: int = 20, *, seed: int = 0, products: ProductMethod = "exact"
) -> HessianTrace:
    r"""Estimates the trace of the Hessian of the mean loss over all rows, with its standard error.

    The mean of :math:`v^T H v` over random signs v (Hutchinson 1989). Unbiased; the variance of one sample is
    :math:`2(\|H\|_F^2 - \sum_i H_{ii}^2)`, less than with Gaussian v, for which the diagonal counts too.

    Args:
        objective: Loss, weights and rows.
        samples: Products to spend, at least 2; the standard error falls as 1 / sqrt(samples).
        seed: Seed of the signs.
        products: As for :func:`hessian_eigenvalues`.

    Raises:
        InputError: a value that cannot be used, or a Hessian that is not finite.
        UnknownName: another kind of product.
    """
    return Hessian(samples=samples, products=products).trace(objective, seed)
