"""Multiplies with a random subspace of the weights that need not fit into memory."""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_ROWS = 1 << 16  # weights per block; a block of 100 directions is 6.5 MB
_HELD = 3 << 30  # bytes of blocks to keep: BERT-base at p = 100 would need 11 GB
_LEVELS = 32  # quantization levels per standard deviation


class Subspace:
    """Multiplies with a random matrix A [n, p] of independent standard normal entries.

    Entries are rounded to 1/32 and clamped to ±4, so that they take a byte; mean and variance stay 0 and 1 to within
    1e-3. Blocks of 65536 weights are drawn, each from a seed of its own. The first 3 GiB of blocks are held; those
    beyond are drawn again for every product, which takes about fifteen times as long as multiplying with a held one.

    Args:
        size: n, the number of weights.
        dimension: p.
        seed: Seed of the entries.
        like: Tensor whose dtype and device the products are computed in.
        kept: Boolean [n]; rows of A are 0 where it is False, so that pruned weights do not move.
    """

    def __init__(self, size: int, dimension: int, seed: int, like: Tensor, kept: Tensor | None = None) -> None:
        self.size, self.dimension, self.seed, self.like, self.kept = size, dimension, seed, like, kept
        self._blocks: dict[int, Tensor] = {}
        # One buffer for all blocks that are not in bytes. Allocated anew between blocks that stay, they would fragment
        # the heap: gaps that nothing fits into, four times the size of the blocks.
        self._buffer = torch.empty(dimension * min(_ROWS, size), dtype=like.dtype, device=like.device)
        self._drawn = torch.empty(dimension * min(_ROWS, size))

    @classmethod
    def seconds(cls, size: int, dimension: int, like: Tensor) -> tuple[float, float]:
        """Estimates the seconds of :meth:`coordinates` (once per measure) and of one product, by timing one block."""
        part = cls(min(size, _ROWS), dimension, 0, like)
        started = time.perf_counter()
        part._block(0)
        drawn = time.perf_counter()
        part.coordinates(torch.ones(part.size, dtype=like.dtype, device=like.device))
        made = time.perf_counter()
        part.combine(np.ones(dimension))
        product = time.perf_counter() - made
        again = max(0.0, 1 - _HELD / (dimension * size)) * (drawn - started)  # blocks not held
        return (made - started) * size / part.size, (product + again) * size / part.size

    def combine(self, z: Array) -> Tensor:
        """Computes A z, [n]."""
        along = torch.as_tensor(z / _LEVELS, dtype=self.like.dtype, device=self.like.device)
        return torch.cat([along @ self._block(start) for start in range(0, self.size, _ROWS)])

    def project(self, x: Tensor) -> Array:
        """Computes Aᵀ x, [p], for x [n], with the sum over blocks in float64."""
        total = torch.zeros(self.dimension, dtype=torch.float64)
        for start in range(0, self.size, _ROWS):
            total += (self._block(start) @ x[start : start + _ROWS]).double().cpu()
        return total.numpy() / _LEVELS

    def coordinates(self, x: Tensor) -> Array:
        """Computes A⁺ x = (Aᵀ A)⁻¹ Aᵀ x, [p], for x [n].

        The normal equations are safe: A of n >> p Gaussian rows has a condition number close to 1.
        """
        gram = torch.zeros(self.dimension, self.dimension, dtype=torch.float64)
        for start in range(0, self.size, _ROWS):
            block = self._block(start)
            gram += (block @ block.T).double().cpu()
        return np.linalg.solve(gram.numpy() / _LEVELS**2, self.project(x)).astype(np.float64)

    def _block(self, start: int) -> Tensor:
        """Returns a block of Aᵀ, [p, rows] from weight ``start`` on, times ``_LEVELS``; valid until the next call."""
        block = self._blocks.get(start)
        if block is None:
            block = self._draw(start)
            if (len(self._blocks) + 1) * self.dimension * _ROWS <= _HELD:
                self._blocks[start] = block
        return self._buffer[: block.numel()].view_as(block).copy_(block)

    def _draw(self, start: int) -> Tensor:
        rows = min(_ROWS, self.size - start)
        (number,) = np.random.SeedSequence([self.seed, start // _ROWS]).generate_state(1)
        drawn = self._drawn[: self.dimension * rows].normal_(generator=torch.Generator().manual_seed(int(number)))
        drawn = drawn.mul_(_LEVELS).round_().clamp_(-4 * _LEVELS + 1, 4 * _LEVELS - 1).view(self.dimension, rows)
        block = drawn.to(self.like.device, torch.int8)
        return block if self.kept is None else block * self.kept[start : start + rows]
