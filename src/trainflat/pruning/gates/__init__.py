"""Gates: which weights stay, decided while the model trains."""

from collections.abc import Mapping
from typing import Any

from trainflat.core.registry import Registry
from trainflat.core.settings import Section, Settings
from trainflat.pruning.gates.activations import GatedActivations
from trainflat.pruning.gates.base import Gate, final_sparsity
from trainflat.pruning.gates.block_movement import BlockMovement
from trainflat.pruning.gates.cofi import CoFi
from trainflat.pruning.gates.expected_price import ExpectedPrice
from trainflat.pruning.gates.functions import FlooredThreshold, GateFunction, HardConcrete, Position, Threshold, TopK
from trainflat.pruning.gates.gradual import (
    PINS,
    GradualGradientNorm,
    GradualGrasp,
    GradualLossPreservation,
    GradualMagnitude,
    GradualPruner,
    GradualRandom,
)
from trainflat.pruning.gates.grain import Grain
from trainflat.pruning.gates.hard_movement import HardMovement
from trainflat.pruning.gates.l0 import L0
from trainflat.pruning.gates.lagrangian import ExpectedSize, Lagrangian
from trainflat.pruning.gates.learned import LearnedMask
from trainflat.pruning.gates.mlpruning import MLPruning
from trainflat.pruning.gates.pressure import Controller, Penalty, Pressure
from trainflat.pruning.gates.soft_movement import SoftMovement
from trainflat.pruning.gates.structural import StructuralGate
from trainflat.pruning.gates.units import MaskGroup, structure_units
from trainflat.pruning.scores.base import PrunerTable

GATES: PrunerTable[Gate] = PrunerTable(
    "gate",
    GradualPruner,
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
    block_movement=BlockMovement,
    mlpruning=MLPruning,
)

STRUCTURE_GATES: Registry[Gate] = Registry("gate", given={"model"}, cofi=CoFi, grain=Grain)
"""Gates that decide on a model's structure and say what to shrink it to, for FlatTrainer and own loops."""

_MEMBERS: dict[str, Any] = {**STRUCTURE_GATES, "block-movement": BlockMovement, "mlpruning": MLPruning}
METHODS: Registry[Gate] = Registry("method", given={"model"}, **_MEMBERS)
"""Gates that say by ``kept()`` what to shrink the model to, when training is complete."""


def read_gate(section: Section) -> Settings:
    """Reads a gate of either table.

    Raises:
        UnknownName: for a name or an option that does not exist.
        InputError: for a value that cannot be used.
    """
    if isinstance(section, Settings):
        return section
    name = section.get("name") if isinstance(section, Mapping) else section
    return STRUCTURE_GATES.read(section) if name in STRUCTURE_GATES else GATES.read(section)


__all__ = [
    "GATES",
    "L0",
    "METHODS",
    "PINS",
    "STRUCTURE_GATES",
    "BlockMovement",
    "CoFi",
    "Controller",
    "ExpectedPrice",
    "ExpectedSize",
    "FlooredThreshold",
    "Gate",
    "GateFunction",
    "GatedActivations",
    "GradualGradientNorm",
    "GradualGrasp",
    "GradualLossPreservation",
    "GradualMagnitude",
    "GradualPruner",
    "GradualRandom",
    "Grain",
    "HardConcrete",
    "HardMovement",
    "Lagrangian",
    "LearnedMask",
    "MLPruning",
    "MaskGroup",
    "Penalty",
    "Position",
    "Pressure",
    "SoftMovement",
    "StructuralGate",
    "Threshold",
    "TopK",
    "final_sparsity",
    "read_gate",
    "structure_units",
]
