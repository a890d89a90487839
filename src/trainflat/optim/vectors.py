"""Treats all parameters as one long vector: inner products, projections, largest entries."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainflat.optim.sam import joint_norm

_ROW = 1024

Gradients = dict[Tensor, Tensor]


def take_gradients(groups: Iterable[dict[str, Any]]) -> Gradients:
    """Moves the gradients out of their parameters without a copy, so that no later pass writes into them."""
    taken = {p: p.grad for group in groups for p in group["params"] if p.grad is not None}
    for p in taken:
        p.grad = None
    return taken


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
    """Computes ``c`` for which ``vector - c * onto`` is orthogonal to ``onto``, over all entries; 0 if that is 0."""
    if not onto:
        return 0.0
    square = joint_norm(onto, 2).square()
    dot = joint_dot(vector, onto).to(square)
    return cheaply_read(torch.where(square > 0, dot / square, torch.zeros_like(square)))


def cheaply_read(scalar: Tensor) -> float | Tensor:
    """Reads a 0-dim tensor where that is free: not on a GPU, which would have to be waited for."""
    return scalar.item() if scalar.is_cpu else scalar


def largest(tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """Returns boolean masks of the ``count`` largest entries of all tensors together, ties in index order."""
    entries = torch.cat([t.reshape(-1) for t in tensors])
    if count >= len(entries):
        return [torch.ones_like(t, dtype=torch.bool) for t in tensors]
    if count == 0:
        return [torch.zeros_like(t, dtype=torch.bool) for t in tensors]
    threshold = entries.kthvalue(len(entries) - count + 1).values
    chosen = entries > threshold
    tied = (entries == threshold).nonzero()[:, 0]
    chosen[tied[: count - int(chosen.sum())]] = True
    parts = torch.split(chosen, [t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
