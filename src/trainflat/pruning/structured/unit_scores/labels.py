"""Gate gradients of the loss on labels, which Taylor and Fisher scores rest on."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from trainflat.anatomy.heads import row_losses
from trainflat.core.errors import InputError
from trainflat.pruning.structured.layerwise import Batch, rows_of
from trainflat.pruning.structured.unit_scores.base import UnitInputs, gate_gradients


def mean_over_rows(inputs: UnitInputs, what: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Returns the mean over rows of a function of the gates' gradients of the row's loss: [units] per sub-layer.

    Args:
        inputs: Model and labelled batches.
        what: Of gradients [rows, units], entry by entry.

    Raises:
        InputError: a batch has no answers.
    """
    rows, sums = rows_of(inputs.batches), list[Tensor]()
    for gradients in gate_gradients(inputs, _losses):
        parts = [what(gradient).sum(0) for gradient in gradients]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    return [total / rows for total in sums]


def _losses(model: Any, outputs: Any, batch: Batch) -> Iterator[Tensor]:
    if "labels" not in batch and "start_positions" not in batch:
        raise InputError(
            "scores `taylor` and `fisher` look at the loss, and the calibration rows have no labels. Give labels, or "
            "choose a score that needs none: obs, kprune, wanda."
        )
    yield row_losses(outputs, batch, model).sum()
