"""The loss on some of the training rows, for gates that measure it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist

from trainflat.core.errors import InputError
from trainflat.objective import Objective
from trainflat.training.hooks import collator

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer


def objective_on_training_rows(trainer: "FlatTrainer", rows: int, batch_size: int) -> Objective:
    """The model's own loss on rows that the run's seed draws, the same ones whenever and wherever it is asked for.

    Args:
        trainer: Of the model and the rows.
        rows: How many; all of a smaller data set.
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
    """Where several processes ask, the first one's numbers count: a rounding apart, they would prune differently."""

    def value_and_gradient(self) -> tuple[float, list[Tensor]]:
        value, gradient = super().value_and_gradient()
        return value, _of_the_first(gradient)

    def hvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        return _of_the_first(super().hvp(vector))


def _of_the_first(tensors: list[Tensor]) -> list[Tensor]:
    for tensor in tensors:
        dist.broadcast(tensor, 0)
    return tensors
