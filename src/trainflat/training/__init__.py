"""Training: the seam between flat optimizers, masks and ``transformers.Trainer``."""

from typing import TYPE_CHECKING, Any

from trainflat.training.options import TrainingOptions
from trainflat.training.sampler import LengthGroupedSampler

if TYPE_CHECKING:
    from trainflat.training.fit import Fitted, fit
    from trainflat.training.trainer import FlatArguments, FlatTrainer

__all__ = ["Fitted", "FlatArguments", "FlatTrainer", "LengthGroupedSampler", "TrainingOptions", "fit"]


def __getattr__(name: str) -> Any:  # transformers' Trainer takes seconds to import; recipes need only the options
    import importlib

    for module in ("trainer", "fit"):
        found = importlib.import_module(f"trainflat.training.{module}")
        if name in __all__ and hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module 'trainflat.training' has no attribute {name!r}")
