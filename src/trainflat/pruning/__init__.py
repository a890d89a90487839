"""Compression: which weights stay."""

from typing import Annotated

from trainflat.core.registry import Registry
from trainflat.core.settings import Section
from trainflat.pruning.base import Pruner, Scope, keep_highest, shuffled_within_layers
from trainflat.pruning.enforcer import Attached, MaskEnforcer
from trainflat.pruning.gradient_flow import gradient_norm_change, loss_change
from trainflat.pruning.gradient_norm import GradientNormPruner
from trainflat.pruning.grasp import GraspPruner
from trainflat.pruning.keys import Magnitudes
from trainflat.pruning.layer_shuffled import LayerShuffledPruner
from trainflat.pruning.loss_preservation import LossPreservationPruner
from trainflat.pruning.magnitude import MagnitudePruner
from trainflat.pruning.masks import Masks
from trainflat.pruning.random import RandomPruner

PRUNERS: Registry[Pruner] = Registry(
    "pruner",
    given={"model", "sparsity", "scope", "masks", "seed", "objective"},
    short=True,
    magnitude=MagnitudePruner,
    random=RandomPruner,
    layer_shuffled=LayerShuffledPruner,
    loss_preservation=LossPreservationPruner,
    grasp=GraspPruner,
    gradient_norm=GradientNormPruner,
)


PrunerSection = Annotated[Section, PRUNERS]

__all__ = [
    "PRUNERS",
    "Attached",
    "GradientNormPruner",
    "GraspPruner",
    "LayerShuffledPruner",
    "LossPreservationPruner",
    "MagnitudePruner",
    "Magnitudes",
    "MaskEnforcer",
    "Masks",
    "Pruner",
    "PrunerSection",
    "RandomPruner",
    "Scope",
    "gradient_norm_change",
    "keep_highest",
    "loss_change",
    "shuffled_within_layers",
]
