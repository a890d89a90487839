"""Lists the averages of the weights along a training, which lie in flatter minima than the weights themselves."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.averaging.base import Averaging
from trainflat.averaging.ema import EMA
from trainflat.averaging.swa import SWA
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.registry import Registry

AVERAGING: Registry[Averaging] = Registry("averaging", given={"model"}, swa=SWA, ema=EMA)


def make_averaging(name: str, model: nn.Module, /, **options: Any) -> Averaging:
    """Builds the average that a recipe names.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a value that cannot be used.

    Example:
        >>> make_averaging("swa", nn.Linear(2, 2), every=0.5).start
        0.5
    """
    return AVERAGING.make(name, model, **options)


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all options of a member, those not given with their defaults; raises what :func:`make_averaging` raises.

    Example:
        >>> complete_options("swa", {"every": 1})
        {'start': 0.5, 'every': 1.0}
    """
    return AVERAGING.complete(name, nn.Module(), options)


def models_taken(name: str, options: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> int:
    """Counts the models that enter the average in a training of ``total_steps`` optimizer steps.

    Raises:
        InputError: no model does.

    Example:
        >>> models_taken("swa", {"start": 0.5, "every": 1.0}, total_steps=250, steps_per_epoch=25)
        5
    """
    member = make_averaging(name, nn.Module(), **options)
    models = sum(member.takes(step, total_steps, steps_per_epoch) for step in range(1, total_steps + 1))
    if not models:
        values = ", ".join(f"{key} {getattr(member, key)}" for key in AVERAGING.options(name))
        raise InputError(
            f"averaging {name} ({values}) would average no model in {plural(total_steps, 'step')}, {steps_per_epoch} "
            "per epoch. Train longer, or lower every."
        )
    return models


__all__ = ["AVERAGING", "EMA", "SWA", "Averaging", "complete_options", "make_averaging", "models_taken"]
