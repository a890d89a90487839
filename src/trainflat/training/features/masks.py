"""Fixed masks: pruned weights stay exactly zero through a training."""

from torch.optim import Optimizer

from trainflat.optim import FlatOptimizer
from trainflat.pruning import MaskEnforcer, Masks
from trainflat.training.features.base import Feature, State


class MasksFeature(Feature):
    """Holds masked weights at zero by masking gradients before each step and weights after it.

    Args:
        settings: The masks.
    """

    in_recipes = False

    def __init__(self, settings: Masks) -> None:
        self._masks = settings
        self._enforcer: MaskEnforcer | None = None

    @property
    def masks(self) -> Masks:
        return self._masks

    def join(self) -> None:
        self._enforcer = self._masks.hold(self.run.model)
        self.check()

    def begin(self, state: State | None, step: int) -> None:
        self.join()  # again: the model is another one where `model_init` makes it

    def optimizer_made(self, optimizer: Optimizer) -> None:
        enforce(self._enforcer, optimizer)

    def gradients(self, lr: float, scale: float) -> None:
        if self._enforcer is not None:
            self._enforcer.mask_gradients()

    def weights_moved(self) -> None:
        if self._enforcer is not None:
            self._enforcer.mask_weights()

    def check(self) -> None:
        self._masks.check(self.run.model)


def enforce(enforcer: MaskEnforcer | None, optimizer: Optimizer) -> None:
    """Has a flat optimizer neither displace nor revive pruned weights."""
    if enforcer is not None and isinstance(optimizer, FlatOptimizer):
        optimizer.held = enforcer
