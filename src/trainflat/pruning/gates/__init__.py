"""Gates: which weights stay, decided while the model trains."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.core.registry import Registry
from trainflat.core.schedules import Schedule, section
from trainflat.pruning.gates.base import Gate
from trainflat.pruning.gates.functions import GateFunction, HardConcrete, Position, Threshold, TopK
from trainflat.pruning.gates.gradual import (
    PINS,
    GradualGradientNorm,
    GradualGrasp,
    GradualLossPreservation,
    GradualMagnitude,
    GradualPruner,
    GradualRandom,
)
from trainflat.pruning.gates.hard_movement import HardMovement
from trainflat.pruning.gates.l0 import L0
from trainflat.pruning.gates.learned import LearnedMask
from trainflat.pruning.gates.pressure import Controller, Penalty, Pressure
from trainflat.pruning.gates.soft_movement import SoftMovement
from trainflat.pruning.gates.units import MaskGroup, structure_units

GATES: Registry[Gate] = Registry(
    "gate",
    given={"model"},
    magnitude=GradualMagnitude,
    random=GradualRandom,
    loss_preservation=GradualLossPreservation,
    grasp=GradualGrasp,
    gradient_norm=GradualGradientNorm,
    pins=PINS,
    hard_movement=HardMovement,
    soft_movement=SoftMovement,
    l0=L0,
)


def make_gate(name: str, model: nn.Module, /, **options: Any) -> Gate:
    """A gate on a model from a recipe's words.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a value that cannot be used.

    Example:
        >>> make_gate("hard-movement", nn.Linear(2, 2), sparsity=0.5).score_lr
        0.01
    """
    return GATES.make(name, model, **options)


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a member, those not given with their defaults; raises what :func:`make_gate` raises.

    Example:
        >>> complete_options("magnitude", {"sparsity": 0.5, "schedule": "linear"})
        {'sparsity': 0.5, 'scope': 'layer', 'schedule': {'name': 'linear', 'start': 0, 'hold': 0}, 'every': 100}
    """
    values = GATES.complete(name, nn.Module(), options)
    return {key: section(value) if isinstance(value, Schedule) else value for key, value in values.items()}


__all__ = [
    "GATES",
    "L0",
    "PINS",
    "Controller",
    "Gate",
    "GateFunction",
    "GradualGradientNorm",
    "GradualGrasp",
    "GradualLossPreservation",
    "GradualMagnitude",
    "GradualPruner",
    "GradualRandom",
    "HardConcrete",
    "HardMovement",
    "LearnedMask",
    "MaskGroup",
    "Penalty",
    "Position",
    "Pressure",
    "SoftMovement",
    "Threshold",
    "TopK",
    "complete_options",
    "make_gate",
    "structure_units",
]
