"""Training: the seam between flat optimizers, masks and ``transformers.Trainer``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainflat.training.options import TrainingOptions
from trainflat.training.sampler import LengthGroupedSampler

if TYPE_CHECKING:
    from trainflat.training.arguments import FlatArguments
    from trainflat.training.callbacks import GateCallback
    from trainflat.training.trainer import FlatTrainer

__all__ = ["FlatArguments", "FlatTrainer", "GateCallback", "LengthGroupedSampler", "TrainingOptions"]

_PLACES = {"FlatArguments": "arguments", "FlatTrainer": "trainer", "GateCallback": "callbacks"}


def __getattr__(name: str) -> Any:  # transformers' Trainer takes seconds to import; recipes need only the options
    if name not in _PLACES:
        raise AttributeError(f"module 'trainflat.training' has no attribute {name!r}")
    return getattr(import_module(f"trainflat.training.{_PLACES[name]}"), name)
