"""Estimates the density of the Hessian's eigenvalues by stochastic Lanczos quadrature (Ghorbani et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.core.formatting import plural
from trainflat.objective.base import Objective, Product, ProductMethod
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector, flatten, unflatten
from trainflat.records.landscape import SpectrumRecord
from trainflat.sharpness.lanczos import lanczos
from trainflat.sharpness.measure import Measure, ProductOption, above_zero, at_least, product_passes

Array = NDArray[np.float64]
_NAMES = ("spectrum_lowest", "spectrum_highest", "spectrum_negative_share")


@dataclass(frozen=True)
class SpectralDensity:
    """Holds the density of eigenvalues, as weighted points and as a smooth curve."""

    nodes: tuple[Array, ...]  # per probe, up to ``steps`` Ritz values, ascending, in units of loss per squared weight
    weights: tuple[Array, ...]  # per probe, the share of all eigenvalues that each node represents; sums to 1
    grid: Array  # [g]
    density: Array  # [g], averaged over the probes; integrates to 1
    standard_error: Array  # [g], over the probes; 0 if there is one
    width: float  # standard deviation of the smoothing Gaussian
    steps: int
    probes: int
    seed: int
    effort: Effort

    @property
    def negative_share(self) -> float:
        """The share of the negative eigenvalues in the sum of absolute eigenvalues, from 0 to 1."""
        nodes, weights = np.concatenate(self.nodes), np.concatenate(self.weights)
        mass = np.abs(nodes) * weights
        return float(mass[nodes < 0].sum() / max(mass.sum(), np.finfo(float).tiny))

    def figures(self) -> dict[str, float]:
        """Returns the outermost Ritz values and the negative share."""
        lowest, highest = min(n[0] for n in self.nodes), max(n[-1] for n in self.nodes)
        return dict(zip(_NAMES, map(float, (lowest, highest, self.negative_share)), strict=True))


class Spectrum(Measure):
    """Density of the Hessian's eigenvalues (stochastic Lanczos quadrature, Ghorbani 2019)."""

    steps: Annotated[int, at_least(1, "the number of Lanczos steps for each probe")] = 30
    probes: Annotated[int, at_least(1, "the number of random vectors")] = 4
    grid: Annotated[int, at_least(2, "the number of points of the density")] = 512
    smoothing: Annotated[float, above_zero("the width of the smoothing as a share of the spectrum's")] = 0.01
    products: ProductOption = "exact"

    def names(self) -> list[str]:
        return list(_NAMES)

    def passes(self) -> dict[Kind, float]:
        return product_passes(self.products, self.steps * self.probes)

    def compute(self, objective: Objective, seed: int = 0) -> SpectralDensity:
        self.check(objective, seed)
        generator = torch.Generator().manual_seed(seed)
        with objective.taking("spectral density", self.steps * self.probes) as effort:
            with objective.products(self.products) as product:
                rules = [self._rule(product, objective.random_direction(generator)) for _ in range(self.probes)]
            nodes, weights = zip(*rules, strict=True)
            grid, width = self._grid(np.concatenate(nodes))
            curves = np.stack([_smooth(grid, n, w, width) for n, w in rules])
            error = curves.std(axis=0, ddof=1) / np.sqrt(self.probes) if self.probes > 1 else np.zeros(self.grid)
            shape = (self.steps, self.probes, seed)
            return SpectralDensity(nodes, weights, grid, curves.mean(axis=0), error, width, *shape, effort())

    def _rule(self, product: Product, probe: Vector) -> tuple[Array, Array]:
        """Computes the Gauss quadrature of the density from one probe: nodes and weights."""
        spaces = lanczos(lambda v: flatten(product(unflatten(v, probe))), flatten(probe))
        *_, space = islice(spaces, self.steps)
        values, vectors = space.ritz()
        return values, vectors[0] ** 2  # Golub and Welsch: squared first entries are the weights of the rule

    def _grid(self, nodes: Array) -> tuple[Array, float]:
        low, high = float(nodes.min()), float(nodes.max())
        # A single eigenvalue (a multiple of the identity) gives no width to take a share of.
        width = self.smoothing * ((high - low) or max(abs(high), 1.0))
        # Four standard deviations beyond the nodes all but 3e-5 of a Gaussian at the end is within the grid.
        return np.linspace(low - 4 * width, high + 4 * width, self.grid), width


def _smooth(grid: Array, nodes: Array, weights: Array, width: float) -> Array:
    bumps = np.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    curve: Array = bumps @ weights
    return curve


def spectral_density(
    objective: Objective,
    steps: int = 30,
    probes: int = 4,
    *,
    grid: int = 512,
    smoothing: float = 0.01,
    seed: int = 0,
    products: ProductMethod = "exact",
) -> SpectralDensity:
    r"""Estimates the density of the eigenvalues of the Hessian of the mean loss over all rows.

    For each of ``probes`` random Gaussian vectors, ``steps`` of Lanczos give a Gauss quadrature rule: its nodes are
    the Ritz values, its weights the squared first entries of their vectors. The curve is the mean of the rules, each
    node smoothed by a Gaussian.

    Args:
        objective: Loss, weights and rows. With masks it is the spectrum of the Hessian of the surviving weights.
        steps: Lanczos steps per probe, at the cost of one product each; each also holds one more copy of the weights.
        probes: Number of random vectors; their spread gives the standard error.
        grid: Number of points of the curve.
        smoothing: Standard deviation of the Gaussian, as a share of the distance between the outermost nodes.
        seed: Seed of the probes.
        products: As for :func:`trainflat.sharpness.hessian_eigenvalues`.

    Raises:
        InputError: a value that cannot be used, or a Hessian that is not finite.
        UnknownName: another kind of product.
    """
    return Spectrum(steps, probes, grid, smoothing, products).compute(objective, seed)


def spectrum_record(found: SpectralDensity, top: Sequence[float] = ()) -> SpectrumRecord:
    """Converts a spectral density to the record that reports draw.

    Args:
        top: Largest eigenvalues, if known, marked in the figure: a few outliers have too little mass to show.
    """
    return SpectrumRecord(
        name="spectrum",
        measured_on=plural(found.effort.rows, "row", form=","),
        eigenvalues=found.grid.tolist(),
        density=found.density.tolist(),
        width=found.width,
        top=sorted(top, reverse=True),
        probes=found.probes,
        steps=found.steps,
    )
