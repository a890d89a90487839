"""The loss of single rows, of which the models of transformers give only the mean."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def example_losses(outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
    """:func:`row_losses` without a graph."""
    with torch.no_grad():
        return row_losses(outputs, inputs)


def row_losses(outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Losses [B] whose mean is the model's own loss, in float32 at least.

    Classes by cross-entropy, numbers by the squared error, spans by the mean of the cross-entropies of both ends.
    """
    if "start_positions" in inputs:
        ends = (outputs.start_logits, inputs["start_positions"]), (outputs.end_logits, inputs["end_positions"])
        return torch.stack([_position_losses(logits, at) for logits, at in ends]).mean(0)
    logits, labels = _wide(outputs.logits), inputs["labels"]
    if logits.shape[-1] == 1:
        return torch.square(logits[:, 0] - labels)
    return F.cross_entropy(logits, labels, reduction="none")


def _position_losses(logits: Tensor, positions: Tensor) -> Tensor:
    # As the models do: a position beyond the row is ignored, and the mean runs over those that count.
    length = logits.shape[1]
    inside = positions.clamp(0, length)
    losses = F.cross_entropy(_wide(logits), inside, ignore_index=length, reduction="none")
    return losses * (len(inside) / (inside < length).sum().clamp_min(1))


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
