"""The divergence guard: a loss that is not finite ends the training and names its rows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainflat.core.errors import TrainingDiverged
from trainflat.training.features.base import Feature

# A loss scaler answers an overflow by skipping the step and halving its scale; more in a row is not an overflow.
_OVERFLOWS_IN_A_ROW = 20


class DivergenceGuard(Feature):
    """Raises on a non-finite loss; tolerates up to 19 consecutive ones under a ``GradScaler``.

    Raises:
        TrainingDiverged: after a micro-batch.
    """

    in_recipes = False

    def __init__(self, settings: Any = True) -> None:
        self._in_a_row = 0

    @classmethod
    def settings_in(cls, settings: Mapping[str, Any], key: str) -> Any:
        return True  # no training goes on without

    def loss_known(self, loss: Tensor, where: Callable[[], str]) -> None:
        # On a GPU this waits for the pass. No other read is there to join (fit() turns off the Trainer's own, clipping
        # does not look), and one step later weights, averages and perhaps a checkpoint would have taken the loss in.
        if torch.isfinite(loss):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if not self.run.loss_is_scaled or self._in_a_row >= _OVERFLOWS_IN_A_ROW:
            raise TrainingDiverged(
                f"the loss is {loss.item()} at {where()}. Lower the learning rate or rho, or look at these rows."
            )
