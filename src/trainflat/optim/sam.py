"""Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv:2010.01412)."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.moves import NOWHERE, Move, Perturbation
from trainflat.optim.phase import Phase

# Below it rho / norm would leave the range of float32; such a gradient has no direction worth following.
_FLAT = 1e-30
_ROW = 1024


class SAM(FlatOptimizer):
    r"""Descends with the gradient taken at the steepest point of a ball around the weights.

    With :math:`g = \nabla L(w)`, equation (2) of the paper and the step that follows it::

        e(w) = rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p)     1/p + 1/q = 1, norms over all parameters together
             = rho * g / ||g||_2                               for p = 2
        w    = w - lr * grad L(w + e(w))                       or whatever step the base optimizer makes of it

    A gradient that is 0 or not finite (an overflow in float16) displaces nothing. The direction does not depend on the
    gradient's scale, so a first pass with a scaled loss needs no unscaling.

    Args:
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step. On a CPU :class:`trainflat.optim.AdamW`, or torch's
            with ``fused=True``, is several times faster than torch's default.
        rho: Radius of the ball in the p-norm over all parameters; :math:`\rho` in the paper.
        p: Norm of the ball, from 1 to infinity. At 1 only the entries with the largest gradient move.
        exclude: Parameters to leave in place and out of the norm: parts of names, or patterns such as ``"*.bias"``.
        every: Perturbs each ``every``-th step, from the first on; the others are plain steps of one pass.
        start: Share of the training before which no step is perturbed (last-phase SAM, Zhou et al. 2025,
            arXiv:2410.10373). Needs ``total_steps``, which the Trainer sets.
        stop: Share of the training after which none is.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Example:
        >>> import torch
        >>> model, inputs = torch.nn.Linear(4, 2), torch.ones(8, 4)
        >>> optimizer = SAM(model.parameters(), base_optimizer=torch.optim.AdamW, rho=0.05, lr=1e-3)
        >>> model(inputs).square().mean().backward()
        >>> with optimizer.perturbed():
        ...     optimizer.zero_grad()
        ...     model(inputs).square().mean().backward()
        >>> optimizer.step()
        >>> round(optimizer.last_norm.item(), 4)
        0.05
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        p: float = 2.0,
        exclude: Sequence[str] = (),
        every: int = 1,
        start: float = 0.0,
        stop: float = 1.0,
        **base_options: Any,
    ) -> None:
        if isinstance(p, bool) or not isinstance(p, int | float) or not p >= 1:
            raise InputError(f"p is the norm of SAM's ball, a number >= 1, got {p!r}.")
        self.p, self.phase = float(p), Phase(every, start, stop)
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1 + Phase(options.get("every", 1), options.get("start", 0.0), options.get("stop", 1.0)).share

    def check_length(self, total: int) -> None:
        self.phase.check(total)

    @property
    def second_pass(self) -> bool:
        return self.phase.includes(self.steps_taken, self.total_steps)

    def perturbation(self) -> Perturbation:
        return steepest_ascent(self.perturbable(), self.p)


def steepest_ascent(groups: Sequence[tuple[float, list[Tensor]]], p: float = 2.0) -> Perturbation:
    """Computes SAM's displacement of groups of parameters with gradients, each to its radius."""
    directions = steepest([[w.grad for w in params if w.grad is not None] for _, params in groups], p)
    return to_ball(groups, directions, p=p) if directions else NOWHERE


def to_ball(
    groups: Sequence[tuple[float, list[Tensor]]],
    directions: list[list[Tensor]],
    *,
    lengths: list[Tensor] | None = None,
    p: float = 2.0,
) -> Perturbation:
    """Scales directions by each group's radius over their joint length.

    Args:
        groups: Radius and parameters.
        directions: One for each parameter.
        lengths: Of each group's directions, 0-dim, where it is not their p-norm that is brought to the radius.
        p: The norm.
    """
    rhos = [rho for rho, _ in groups]
    norms = [joint_norm(group, p) for group in directions]
    scales, norm = scales_to_ball(norms if lengths is None else lengths, rhos, p)
    if not scales:
        return Perturbation([], norm)
    if lengths is not None:
        norm = joint_norm([n * s for n, s in zip(norms, scales, strict=True)], p)
    return Perturbation(
        [Move(params, group, s) for (_, params), group, s in zip(groups, directions, scales, strict=True)], norm
    )


def joint_norm(tensors: Sequence[Tensor], order: float) -> Tensor:
    """Returns the ``order``-norm of all entries together, 0-dim, in float32 at least."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for t in itertools.chain.from_iterable(_pieces(t, order) for t in tensors):
        kinds[t.device, t.dtype].append(t)
    norms: list[Tensor] = []
    for (_, dtype), batch in kinds.items():
        wide = torch.promote_types(dtype, torch.float32)
        norms += foreach("norm", batch, order, dtype=None if wide == dtype else wide)
    joint: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]), order)
    return joint


def _pieces(t: Tensor, order: float) -> list[Tensor]:
    """Returns splits ``t`` into pieces with the same joint norm.

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


def steepest(grads: list[list[Tensor]], p: float) -> list[list[Tensor]]:
    """Returns the directions of steepest ascent in the p-norm per group, of any length; empty if there are none.

    Gradients are divided by their largest entry before the power q - 1, which is large for p near 1: nothing over-
    or underflows. Halves come back as float32, for in them a scale of rho / norm overflows.
    """
    if p == 2:
        return [[g if g.dtype.itemsize >= 4 else g.float() for g in group] for group in grads]
    if not grads:
        return []
    largest = joint_norm([joint_norm(group, math.inf) for group in grads], math.inf).item()
    if not _FLAT < largest < math.inf:
        return []
    return [[_dual(g, largest, p) for g in group] for group in grads]


def _dual(g: Tensor, largest: float, p: float) -> Tensor:
    g = g if g.dtype.itemsize >= 4 else g.float()
    share = g.abs() / largest
    if p == 1:  # q is infinite: the limit of the power is 1 at the largest entries and 0 elsewhere
        return g.sign() * (share == 1)
    return g.sign() * share.pow(1 / (p - 1))  # q - 1 = 1 / (p - 1)


def scales_to_ball(
    norms: list[Tensor], rhos: list[float], p: float, *, read: bool | None = None
) -> tuple[Sequence[float | Tensor], Tensor]:
    """Returns factors that bring each group's directions to its radius under the joint norm, and the norm that results.

    Args:
        norms: p-norm of each group's directions, 0-dim.
        rhos: Radius of each group.
        p: The norm.
        read: Whether to read the joint norm. By default where that is cheap: a GPU would have to be waited for, so the
            factors stay tensors there, 0 for a displacement to skip.

    Returns:
        Nothing and 0 where the joint norm is read and is 0 or not finite.
    """
    devices = {n.device for n in norms}
    if read is None:
        read = len(devices) > 1 or norms[0].is_cpu
    together = torch.stack([n.to(norms[0].device) for n in norms])
    total = torch.linalg.vector_norm(together, p)
    reached = torch.linalg.vector_norm(torch.stack([n * rho for n, rho in zip(together, rhos, strict=True)]), p) / total
    if not read:
        usable = total.isfinite() & (total > _FLAT)
        zero = torch.zeros_like(total)
        return [torch.where(usable, rho / total, zero) for rho in rhos], torch.where(usable, reached, zero)
    length = total.item()
    if not _FLAT < length < math.inf:
        return [], torch.zeros(())
    return [rho / length for rho in rhos], reached
