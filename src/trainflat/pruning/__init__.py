"""Compression: which weights stay."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.core.errors import UnknownName
from trainflat.core.registry import Registry
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
    magnitude=MagnitudePruner,
    random=RandomPruner,
    layer_shuffled=LayerShuffledPruner,
    loss_preservation=LossPreservationPruner,
    grasp=GraspPruner,
    gradient_norm=GradientNormPruner,
)


def complete_section(given: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """A pruner as recipes name it, with all its options; one that has none is its name alone.

    Raises:
        UnknownName: no pruner, or no option of it, has that name.
        InputError: an option that makes no sense.

    Example:
        >>> complete_section({"name": "grasp", "rows": 64})
        {'name': 'grasp', 'rows': 64, 'batch_size': 16, 'temperature': 200.0}
        >>> complete_section("magnitude")
        'magnitude'
    """
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = str(options.pop("name", None))
    known = PRUNERS.options(name)
    for key in options:  # a recipe may not say `sparsity` here either
        if key not in known:
            raise UnknownName(f"option of pruner {name!r}", str(key), known)
    member = PRUNERS.build(name, nn.Linear(1, 1), **options)  # constructors refuse options, of whatever model
    return {"name": name, **{key: getattr(member, key) for key in known}} if known else name


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
    "RandomPruner",
    "Scope",
    "complete_section",
    "gradient_norm_change",
    "keep_highest",
    "loss_change",
    "shuffled_within_layers",
]
