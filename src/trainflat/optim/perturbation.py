"""Computes perturbations of the weights: which way each parameter group goes, and how far."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainflat.core.foreach import foreach
from trainflat.optim.vectors import gradients, joint_norm, widen

# Below it rho / norm would leave the range of float32; such a gradient has no direction worth following.
_FLAT = 1e-30

Groups = Sequence[tuple[float, list[Tensor]]]
"""The radius and the parameters of each parameter group."""


class Move(NamedTuple):
    """``params[i]`` goes to ``params[i] + scale * directions[i]``; the directions, often gradients, are only read."""

    params: list[Tensor]
    directions: list[Tensor]
    scale: float | Tensor


class Perturbation(NamedTuple):
    """One move per parameter group, to where the second pass is taken, and the norm of all together (0-dim)."""

    moves: list[Move]
    norm: Tensor


NO_PERTURBATION = Perturbation([], torch.zeros(()))


def apply_move(move: Move) -> None:
    """Adds the scaled directions to the parameters, in place."""
    if isinstance(move.scale, float):
        foreach("add_", move.params, move.directions, alpha=move.scale)
        return
    steps = foreach("mul", move.directions, move.scale)
    for step in steps:  # a scale of 0 times an overflowed gradient is NaN, and must move nothing
        step.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    foreach("add_", move.params, list(steps))


def joint_length(moves: Iterable[Move]) -> Tensor:
    """Computes the L2 norm of all moves together, 0-dim."""
    norms = [joint_norm(move.directions, 2.0) * move.scale for move in moves]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])) if norms else torch.zeros(())


def steepest_ascent(groups: Groups, p: float = 2.0) -> Perturbation:
    """Computes SAM's perturbation of groups of parameters with gradients, each to its radius."""
    directions = steepest(groups, p)
    return to_ball(groups, directions, p=p) if directions else NO_PERTURBATION


def steepest(groups: Groups, p: float = 2.0) -> list[list[Tensor]]:
    """Returns each group's direction of steepest ascent in the p-norm, of any length; empty without a usable gradient.

    By Hölder's inequality ``sign(g) |g|^(q-1)`` maximises ``g . e`` over a p-norm ball, with 1/p + 1/q = 1.
    """
    grads = [gradients(params) for _, params in groups]
    if p == 2:  # q - 1 = 1: the gradient itself
        return [[widen(g) for g in group] for group in grads]
    if not grads:
        return []
    # Divided by the largest entry before the power q - 1, which is large for p near 1: nothing over- or underflows.
    largest = joint_norm([joint_norm(group, math.inf) for group in grads], math.inf).item()
    if not _FLAT < largest < math.inf:
        return []
    return [[_dual(widen(g), largest, p) for g in group] for group in grads]


def _dual(g: Tensor, largest: float, p: float) -> Tensor:
    share = g.abs() / largest
    if p == 1:  # q is infinite: the limit of the power is 1 at the largest entries and 0 elsewhere
        return g.sign() * (share == 1)
    return g.sign() * share.pow(1 / (p - 1))  # q - 1 = 1 / (p - 1)


def to_ball(
    groups: Groups, directions: list[list[Tensor]], *, lengths: list[Tensor] | None = None, p: float = 2.0
) -> Perturbation:
    """Scales directions by each group's radius over their joint length.

    Args:
        groups: Radius and parameters of each group.
        directions: One tensor per parameter.
        lengths: Length of each group's directions, 0-dim, where the ball is not measured in their p-norm: ASAM's ball
            is measured in ||T g||, and masked perturbations (SSAM, ESAM) keep the scale of the whole gradient.
        p: Norm of the ball.
    """
    norms = [joint_norm(group, p) for group in directions]
    scales, norm = scales_to_ball(norms if lengths is None else lengths, [rho for rho, _ in groups], p)
    if not scales:
        return Perturbation([], norm)
    if lengths is not None:
        norm = joint_norm([n * s for n, s in zip(norms, scales, strict=True)], p)
    moves = [Move(params, group, s) for (_, params), group, s in zip(groups, directions, scales, strict=True)]
    return Perturbation(moves, norm)


def scales_to_ball(
    norms: list[Tensor], rhos: list[float], p: float, *, read: bool | None = None
) -> tuple[Sequence[float | Tensor], Tensor]:
    """Returns the factor rho / joint norm of each group, and the norm of the perturbation that they give.

    Args:
        norms: p-norm of each group's directions, 0-dim.
        rhos: Radius of each group.
        p: Norm of the ball.
        read: Whether to read the joint norm as a Python number. By default only where that is cheap: on a GPU
            ``.item()`` waits for the backward pass to end, so the factors stay tensors there, 0 to perturb nothing.

    Returns:
        No factors and 0 where the joint norm is read and is 0 or not finite.
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
