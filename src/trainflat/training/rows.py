"""Builds the loss on a sample of training rows, for gates that score by loss or curvature."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from transformers import Trainer

from trainflat.core.errors import InputError
from trainflat.objective import Objective
from trainflat.training.hooks import collator


def objective_on_training_rows(trainer: Trainer, rows: int, batch_size: int) -> Objective:
    """Builds the objective on rows that the run's seed draws, the same rows in every call and process.

    Args:
        trainer: Has the model, the training rows and the seed.
        rows: How many rows; all of a smaller data set.
        batch_size: Rows per pass.

    Raises:
        InputError: the training rows have no length, so none can be drawn.
    """
    data: Any = trainer.train_dataset
    if not hasattr(data, "__len__"):
        raise InputError("the gate draws training rows, and this data set has no length. Choose another gate.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(trainer.args.seed))[:rows].tolist()
    collate = collator(trainer)
    starts = range(0, len(order), batch_size)
    batches = [dict(collate([data[row] for row in order[start : start + batch_size]])) for start in starts]
    return (Objective if trainer.args.world_size == 1 else _Shared)(trainer.model, batches)


class _Shared(Objective):
    """Broadcasts the first process's gradients: a rounding apart, processes would prune differently."""

    def value_and_gradient(self) -> tuple[float, list[Tensor]]:
        value, gradient = super().value_and_gradient()
        return value, _of_the_first(gradient)

    def hvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        return _of_the_first(super().hvp(vector))


def _of_the_first(tensors: list[Tensor]) -> list[Tensor]:
    for tensor in tensors:
        dist.broadcast(tensor, 0)
    return tensors
