"""Treats many tensors as one long vector: norms, inner products, projections, largest entries."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainflat.core.foreach import foreach

# Entries that are summed by themselves before the sums are summed: short enough that float32 loses nothing that matters
# within a row, long enough that a second stage over the rows costs nothing.
_ROW = 1024

Gradients = dict[Tensor, Tensor]


def gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Returns the gradients that are not None."""
    return [p.grad for p in params if p.grad is not None]


def take_gradients(groups: Iterable[dict[str, Any]]) -> Gradients:
    """Moves the gradients out of their parameters without a copy, so that no later pass writes into them."""
    taken = {p: p.grad for group in groups for p in group["params"] if p.grad is not None}
    for p in taken:
        p.grad = None
    return taken


def widen(t: Tensor) -> Tensor:
    """Converts float16 and bfloat16 to float32: rho / norm overflows the first, and has 3 digits in the second."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def joint_norm(tensors: Sequence[Tensor], order: float) -> Tensor:
    """Computes the ``order``-norm of all entries of the tensors together, 0-dim, in float32 at least."""
    # torch's fused norm takes one device and dtype per call; a norm of partial norms is the norm of the whole.
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for t in itertools.chain.from_iterable(_pieces(t, order) for t in tensors):
        kinds[t.device, t.dtype].append(t)
    norms: list[Tensor] = []
    for (_, dtype), batch in kinds.items():
        wide = torch.promote_types(dtype, torch.float32)  # squares of float16 overflow from 256 on
        norms += foreach("norm", batch, order, dtype=None if wide == dtype else wide)
    joint: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]), order)
    return joint


def _pieces(t: Tensor, order: float) -> list[Tensor]:
    """Splits a tensor into pieces with the same joint norm.

    On a CPU torch adds up a float32 norm in a few running sums per thread: over an embedding of 12 million entries
    that is off by 5e-4, and by another amount with another number of threads. Norms of rows take the same time.
    """
    if not t.is_cpu or t.numel() <= 2 * _ROW:
        return [t]
    flat = t.reshape(-1)
    whole = flat.numel() // _ROW * _ROW
    wide = torch.promote_types(t.dtype, torch.float32)
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), order, dim=1, dtype=wide)
    return [rows, flat[whole:]] if whole < flat.numel() else [rows]


def joint_dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Computes the inner product of all entries together, 0-dim, in float32 at least."""
    products = [_dot(a, b) for a, b in zip(one, other, strict=True)]
    return torch.stack([d.to(products[0].device) for d in products]).sum()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    x, y = a.reshape(-1).to(wide), b.reshape(-1).to(wide)
    # By rows, as in joint_norm: one running sum over millions of float32 products is off by more than its rounding.
    whole = x.numel() // _ROW * _ROW
    rows = torch.linalg.vecdot(x[:whole].view(-1, _ROW), y[:whole].view(-1, _ROW))
    total: Tensor = rows.sum() + torch.dot(x[whole:], y[whole:])
    return total


def coefficient(vector: Sequence[Tensor], onto: Sequence[Tensor]) -> float | Tensor:
    """Computes the projection coefficient ``c = (vector . onto) / ||onto||^2``; 0 where ``onto`` is 0.

    ``vector - c * onto`` is orthogonal to ``onto``, all entries taken as one vector.
    """
    if not onto:
        return 0.0
    square = joint_norm(onto, 2).square()
    dot = joint_dot(vector, onto).to(square)
    return cheaply_read(torch.where(square > 0, dot / square, torch.zeros_like(square)))


def cheaply_read(scalar: Tensor) -> float | Tensor:
    """Reads a 0-dim tensor on a CPU; leaves it a tensor on a GPU, where ``.item()`` waits for all queued kernels."""
    return scalar.item() if scalar.is_cpu else scalar


def largest(tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """Returns boolean masks of the ``count`` largest entries of all tensors together, ties in index order."""
    entries = torch.cat([t.reshape(-1) for t in tensors])
    if count >= len(entries):
        return [torch.ones_like(t, dtype=torch.bool) for t in tensors]
    if count == 0:
        return [torch.zeros_like(t, dtype=torch.bool) for t in tensors]
    # Not topk, which breaks ties by no rule: two processes, or a resumed run, could keep different entries.
    threshold = entries.kthvalue(len(entries) - count + 1).values
    chosen = entries > threshold
    tied = (entries == threshold).nonzero()[:, 0]
    chosen[tied[: count - int(chosen.sum())]] = True
    parts = torch.split(chosen, [t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
