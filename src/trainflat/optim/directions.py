"""Makes displacements that cost no pass: along the base optimizer's momentum or the previous gradient."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.moves import NOWHERE, Move, Perturbation
from trainflat.optim.sam import joint_norm, steepest, to_ball

# Where torch's optimizers keep a running mean of gradients: the Adam family, then SGD, RMSprop and Muon.
_MOMENTA = ("exp_avg", "momentum_buffer")


class Course(NamedTuple):
    """Pairs parameters with directions; together they are displaced by the distance ``rho``."""

    rho: float
    params: list[Tensor]
    directions: list[Tensor]


def onto_sphere(courses: Iterable[Course], sign: float = 1.0) -> Perturbation:
    """Scales directions to length ``rho`` (L2 norm over all groups); zero directions stay zero."""
    courses = [course for course in courses if course.params]
    if not courses:
        return NOWHERE
    groups = [(course.rho, course.params) for course in courses]
    moves, norm = to_ball(groups, steepest([course.directions for course in courses], 2.0))
    return Perturbation([move._replace(scale=sign * move.scale) for move in moves], norm)


def norm_of(moves: Iterable[Move]) -> Tensor:
    """Computes the L2 norm of all moves together, 0-dim."""
    norms = [joint_norm(move.directions, 2.0) * move.scale for move in moves]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])) if norms else torch.zeros(())


def momentum_course(optimizer: FlatOptimizer) -> list[Course]:
    """Reads the base optimizer's momentum of each group's parameters; those without one yet are left out."""
    courses = []
    for rho, params in optimizer.displaced():
        pairs = [(p, m) for p in params if (m := _momentum(optimizer.state.get(p, {}))) is not None]
        courses.append(Course(rho, [p for p, _ in pairs], [m for _, m in pairs]))
    return courses


def previous_course(optimizer: FlatOptimizer) -> list[Course]:
    """Reads the gradient of the previous step, as :func:`keep_gradients` stored it; 0 before the first step."""
    return [Course(rho, params, optimizer.remembered("gradient", params)) for rho, params in optimizer.displaced()]


def keep_gradients(optimizer: FlatOptimizer) -> None:
    """Stores the gradients at hand in the memory, 0 where there is none."""
    given = [p for _, params in optimizer.perturbable() for p in params]  # which refuses sparse ones
    absent = [p for _, params in optimizer.displaced() for p in params if p.grad is None]
    if given:
        foreach("copy_", optimizer.remembered("gradient", given), gradients(given))
    for kept in optimizer.remembered("gradient", absent):
        kept.zero_()


def gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Returns the gradients that are not None."""
    return [p.grad for p in params if p.grad is not None]


def require_momentum(optimizer: FlatOptimizer, group: Mapping[str, Any]) -> None:
    """Checks that the base optimizer has a momentum to go along.

    Raises:
        InputError: names the base that has none.
    """
    if "betas" in group or group.get("momentum"):
        return
    name, base = type(optimizer).__name__, type(optimizer.base).__name__
    remedy = "Set momentum (0.9), or choose adamw" if "momentum" in group else "Choose adamw, or sgd with momentum"
    raise InputError(f"{name} goes along the momentum of its base optimizer, and {base} has none. {remedy}.")


def _momentum(state: Mapping[str, Any]) -> Tensor | None:
    return next((state[key] for key in _MOMENTA if state.get(key) is not None), None)
