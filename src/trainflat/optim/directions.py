"""Reads directions that cost no pass: the base optimizer's momentum, and the gradient of the previous step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, to_ball
from trainflat.optim.vectors import gradients, widen

# Where torch's optimizers keep a running mean of gradients: the Adam family, then SGD, RMSprop and Muon.
_MOMENTA = ("exp_avg", "momentum_buffer")


class Directions(NamedTuple):
    """Pairs the parameters of a group with directions, to be perturbed by the radius ``rho``."""

    rho: float
    params: list[Tensor]
    tensors: list[Tensor]


def to_sphere(groups: list[Directions], sign: float = 1.0) -> Perturbation:
    """Scales directions to length ``rho`` (L2 norm over all groups); zero directions stay zero."""
    groups = [group for group in groups if group.params]
    if not groups:
        return NO_PERTURBATION
    wide = [[widen(t) for t in group.tensors] for group in groups]  # a momentum is as narrow as its weight
    moves, norm = to_ball([(group.rho, group.params) for group in groups], wide)
    return Perturbation([move._replace(scale=sign * move.scale) for move in moves], norm)


def momentum_directions(optimizer: FlatOptimizer) -> list[Directions]:
    """Reads the base optimizer's momentum; leaves out parameters that have none yet (before their first step)."""
    groups = []
    for rho, params in optimizer.displaced():
        pairs = [(p, m) for p in params if (m := _momentum(optimizer.state.get(p, {}))) is not None]
        groups.append(Directions(rho, [p for p, _ in pairs], [m for _, m in pairs]))
    return groups


def _momentum(state: Mapping[str, Any]) -> Tensor | None:
    return next((state[key] for key in _MOMENTA if state.get(key) is not None), None)


def previous_gradients(optimizer: FlatOptimizer) -> list[Directions]:
    """Reads the gradients that :func:`store_gradients` stored in the previous step; 0 before the first step."""
    return [Directions(rho, params, optimizer.remembered("gradient", params)) for rho, params in optimizer.displaced()]


def store_gradients(optimizer: FlatOptimizer) -> None:
    """Stores the current gradients in the memory, 0 where there is none."""
    given = [p for _, params in optimizer.perturbable() for p in params]  # refuses sparse gradients
    absent = [p for _, params in optimizer.displaced() for p in params if p.grad is None]
    if given:
        foreach("copy_", optimizer.remembered("gradient", given), gradients(given))
    # A batch that did not use a parameter has gradient 0 there; the one of an older step would be stale.
    for kept in optimizer.remembered("gradient", absent):
        kept.zero_()


def require_momentum(flat: type[FlatOptimizer], base: Optimizer, group: Mapping[str, Any]) -> None:
    """Checks that the base optimizer keeps a momentum.

    Raises:
        InputError: names the base optimizer that keeps none.
    """
    if "betas" in group or group.get("momentum"):
        return
    remedy = "Set momentum (0.9), or choose adamw" if "momentum" in group else "Choose adamw, or sgd with momentum"
    kind = type(base).__name__
    raise InputError(f"{flat.__name__} goes along the momentum of its base optimizer, and {kind} has none. {remedy}.")
