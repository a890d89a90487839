"""A loss that is no number ends a training, and names its rows."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainflat.core.errors import TrainingDiverged
from trainflat.training.hooks import micro_batch_rows

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer

# A loss scaler answers an overflow by skipping the step and halving its scale; more in a row is not an overflow.
_OVERFLOWS_IN_A_ROW = 20


class Finite:
    """Looks at the loss of every micro-batch of a training."""

    def __init__(self, trainer: "FlatTrainer") -> None:
        self._trainer, self._in_a_row = trainer, 0

    def require(self, loss: Tensor) -> None:
        """Lets a loss pass that is finite, and a few that a loss scaler still has to answer.

        Raises:
            TrainingDiverged: names the step, and the rows where the sampler is ours.
        """
        # On a GPU this waits for the pass. No other read is there to join (fit() turns off the Trainer's own, clipping
        # does not look), and one step later weights, averages and perhaps a checkpoint would have taken the loss in.
        if torch.isfinite(loss):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._trainer.accelerator.scaler is not None and self._in_a_row < _OVERFLOWS_IN_A_ROW:
            return
        raise TrainingDiverged(
            f"the loss is {loss.item()} at step {self._trainer.state.global_step + 1}, {self._batch_name()}. "
            "Lower the learning rate or rho, or look at these rows."
        )

    def _batch_name(self) -> str:
        trainer, sampler = self._trainer, self._trainer._sampler
        micro, rows = len(trainer.passes.window.batches) - 1, micro_batch_rows(trainer)
        if sampler is None:
            return f"micro-batch {micro + 1}"
        micro_batches = len(trainer.callback_handler.train_dataloader)  # fewer where an incomplete one is dropped
        in_epoch = trainer.state.global_step % math.ceil(micro_batches / trainer.args.gradient_accumulation_steps)
        start = in_epoch * sampler.batch_size + (micro * trainer.args.world_size + trainer.args.process_index) * rows
        order = sampler.order(sampler.epoch)[start : start + rows]
        return f"batch {in_epoch + 1} of epoch {sampler.epoch + 1} (training rows {', '.join(map(str, order))})"
