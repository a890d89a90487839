"""Lists the averages of the weights along a training, which lie in flatter minima than the weights themselves."""

from trainflat.averaging.base import Averaging
from trainflat.averaging.ema import EMA
from trainflat.averaging.swa import SWA
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.registry import Registry
from trainflat.core.settings import Settings

AVERAGING: Registry[Averaging] = Registry("averaging", given={"model"}, swa=SWA, ema=EMA)


def models_taken(settings: Settings, total_steps: int, steps_per_epoch: int) -> int:
    """Counts the models that enter the average in a training of ``total_steps`` optimizer steps.

    Raises:
        InputError: no model does.

    Example:
        >>> models_taken(AVERAGING.read("swa"), total_steps=250, steps_per_epoch=25)
        5
    """
    steps = range(1, total_steps + 1)
    models = sum(settings.member.is_due(settings, step, total_steps, steps_per_epoch) for step in steps)
    if not models:
        values = ", ".join(f"{key} {value}" for key, value in settings.options.items())
        raise InputError(
            f"averaging {settings.name} ({values}) would average no model in {plural(total_steps, 'step')}, "
            f"{steps_per_epoch} per epoch. Train longer, or lower every."
        )
    return int(models)


__all__ = ["AVERAGING", "EMA", "SWA", "Averaging", "models_taken"]
