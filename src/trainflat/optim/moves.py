"""Describes and applies displacements of the weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from trainflat.core.foreach import foreach


class Move(NamedTuple):
    """``params[i]`` goes to ``params[i] + scale * directions[i]``; the directions, often gradients, are only read."""

    params: list[Tensor]
    directions: list[Tensor]
    scale: float | Tensor


class Perturbation(NamedTuple):
    """Where the weights go for the second pass: one move per parameter group, and the norm of all together (0-dim)."""

    moves: list[Move]
    norm: Tensor


NOWHERE = Perturbation([], torch.zeros(()))


def advance(move: Move) -> None:
    """Moves the weights, in place."""
    if isinstance(move.scale, float):
        foreach("add_", move.params, move.directions, alpha=move.scale)
        return
    steps = foreach("mul", move.directions, move.scale)
    for step in steps:  # a scale of 0 times an overflowed gradient is NaN, and must move nothing
        step.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    foreach("add_", move.params, list(steps))
