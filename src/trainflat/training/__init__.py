"""Training: the seam between flat optimizers, masks and ``transformers.Trainer``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainflat.training.options import TrainingOptions
from trainflat.training.sampler import LengthGroupedSampler

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatArguments, FlatTrainer

__all__ = ["FlatArguments", "FlatTrainer", "LengthGroupedSampler", "TrainingOptions"]


def __getattr__(name: str) -> Any:  # transformers' Trainer takes seconds to import; recipes need only the options
    if name not in ("FlatArguments", "FlatTrainer"):
        raise AttributeError(f"module 'trainflat.training' has no attribute {name!r}")
    return getattr(import_module("trainflat.training.trainer"), name)
