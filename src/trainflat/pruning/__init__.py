"""Compression: which weights stay."""

from typing import Annotated

from trainflat.core.settings import Section
from trainflat.pruning.choice import keep_highest, shuffled_within_layers
from trainflat.pruning.enforcer import Attached, MaskEnforcer
from trainflat.pruning.keys import Magnitudes
from trainflat.pruning.masks import Masks
from trainflat.pruning.one_shot import (
    GradientNormPruner,
    GraspPruner,
    LayerShuffledPruner,
    LossPreservationPruner,
    MagnitudePruner,
    Pruner,
    RandomPruner,
)
from trainflat.pruning.options import Scope
from trainflat.pruning.scores import SCORES, Score, ScoreInputs, gradient_norm_change, loss_change
from trainflat.pruning.scores.base import PrunerTable

PRUNERS: PrunerTable[Pruner] = PrunerTable(
    "pruner",
    Pruner,
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
    "SCORES",
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
    "Score",
    "ScoreInputs",
    "gradient_norm_change",
    "keep_highest",
    "loss_change",
    "shuffled_within_layers",
]
