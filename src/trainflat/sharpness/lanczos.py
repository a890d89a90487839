"""Runs the Lanczos process with full reorthogonalisation (Golub and Van Loan, Matrix Computations, section 10.3)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from trainflat.objective.vectors import norm
from trainflat.sharpness.measure import AT_THE_WEIGHTS, finite

Array = NDArray[np.float64]
# Entries at a time: they fit the processor's cache, and float32 sums of 65536 products stay accurate to about 1e-6,
# where one over 1e8 weights would lose the orthogonality that the method rests on.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Tridiagonal:
    """Holds the tridiagonal T = Qᵀ H Q of a Krylov space of m dimensions."""

    diagonal: Array  # [m]
    beside: Array  # [m - 1], the off-diagonal
    rest: float  # norm of the part of H q_m outside the space, the next off-diagonal entry; 0 once it is invariant

    def ritz(self) -> tuple[Array, Array]:
        """Computes the eigenvalues [m] of T in ascending order, and its eigenvectors [m, m] as columns."""
        values, vectors = eigh_tridiagonal(self.diagonal, self.beside)
        return values.astype(np.float64), vectors.astype(np.float64)


def lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, restart: Callable[[], Tensor] | None = None
) -> Iterator[Tridiagonal]:
    """Grows a Krylov space of a symmetric H, known through its products, by one dimension per item.

    Every vector of the basis is kept: m items hold m vectors like ``start``. Without reorthogonalization against all of
    them rounding brings converged eigenvectors back, as spurious copies of their eigenvalues. Ends when the space is
    invariant.

    Args:
        product: Takes v [n], gives H v [n].
        start: Any vector [n] but 0.
        restart: Draws random vectors [n]. An invariant space is then extended by one of them, until the space of all
            such vectors is covered, so that eigenvalues are found whose eigenvectors are orthogonal to ``start``, or
            that are multiple.

    Raises:
        InputError: a product is not finite.
    """
    basis = [start / norm([start])]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        vector = product(basis[-1])
        size = finite(norm([vector]), AT_THE_WEIGHTS, "Hessian's product with a vector")
        diagonal.append(orthogonalize(vector, basis)[-1])
        rest = norm([vector])
        # A remainder below the rounding of the product is noise; normalized, it would be a random direction.
        if rest <= 100 * torch.finfo(vector.dtype).eps * max(size, abs(diagonal[-1]), *map(abs, diagonal)):
            rest = 0.0
        yield Tridiagonal(np.array(diagonal), np.array(beside), rest)
        if rest == 0:
            found = _fresh(restart, basis) if restart else None
            if found is None:
                return
            vector, rest = found, 0.0
        beside.append(rest)
        basis.append(vector / norm([vector]))


def orthogonalize(vector: Tensor, basis: Sequence[Tensor]) -> Array:
    """Projects the orthonormal ``basis`` out of ``vector``, in place and twice; returns the coefficients."""
    total = np.zeros(len(basis))
    for _ in range(2):  # once leaves rounding of the size of what was removed; "twice is enough" (Kahan, Parlett)
        coefficients = torch.zeros(len(basis), dtype=torch.float64)
        for start in range(0, len(vector), _CHUNK):
            part = torch.stack([q[start : start + _CHUNK] for q in basis])
            coefficients += (part @ vector[start : start + _CHUNK]).double().cpu()
        along = coefficients.to(vector.device, vector.dtype)
        for start in range(0, len(vector), _CHUNK):
            part = torch.stack([q[start : start + _CHUNK] for q in basis])
            vector[start : start + _CHUNK] -= along @ part
        total += coefficients.numpy()
    return total


def _fresh(restart: Callable[[], Tensor], basis: Sequence[Tensor]) -> Tensor | None:
    """Draws a random vector orthogonal to ``basis``; None if the basis is complete."""
    vector = restart()
    before = norm([vector])
    orthogonalize(vector, basis)
    return vector if norm([vector]) > 1e-3 * before else None
