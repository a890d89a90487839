"""Compression: which weights stay."""

from trainflat.pruning.base import Pruner, Scope, keep_highest, shuffled_within_layers
from trainflat.pruning.held import Attached, HeldMasks
from trainflat.pruning.keys import Magnitudes
from trainflat.pruning.layer_shuffled import LayerShuffledPruner
from trainflat.pruning.magnitude import MagnitudePruner
from trainflat.pruning.masks import Masks
from trainflat.pruning.random import RandomPruner
from trainflat.registry import Registry

PRUNERS: Registry[Pruner] = Registry(
    "pruner",
    given={"model", "sparsity", "masks", "seed"},
    magnitude=MagnitudePruner,
    random=RandomPruner,
    layer_shuffled=LayerShuffledPruner,
)

__all__ = [
    "PRUNERS",
    "Attached",
    "HeldMasks",
    "LayerShuffledPruner",
    "MagnitudePruner",
    "Magnitudes",
    "Masks",
    "Pruner",
    "RandomPruner",
    "Scope",
    "keep_highest",
    "shuffled_within_layers",
]
