"""Computes the weight of a micro-batch in its window: losses are means over rows, tokens or spans, whichever count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trainflat.core.errors import InputError

_IGNORED = -100
_SPANS = ("start_positions", "end_positions")


@dataclass(frozen=True)
class Size:
    """Holds the number of rows, and of label entries that count in the loss."""

    rows: int
    counted: Mapping[str, int | Fraction]

    def weight(self, whole: "Size") -> float:
        """Computes the factor of this part's mean, so that the parts, weighted by their rows, give the mean over all.

        Raises:
            InputError: the loss has several parts, which weigh differently.
        """
        weights = {
            name: Fraction(count * whole.rows) / Fraction(whole.counted[name] * self.rows) if count else Fraction(0)
            for name, count in self.counted.items()
        }
        if len(set(weights.values())) > 1:
            raise InputError(
                f"the entries that count of {' and '.join(weights)} are cut differently among micro-batches or "
                "processes, whose losses then cannot be joined. Use gradient_accumulation_steps=1 on one process."
            )
        return float(next(iter(weights.values()), 1))


@dataclass(frozen=True)
class Sizes:
    """Measures batches of one kind of head.

    Args:
        names: Of the labels.
        shifted: Whether the model predicts the next token, so that the first label of a row is none.
    """

    names: tuple[str, ...]
    shifted: bool

    @classmethod
    def of(cls, model: Any, names: Iterable[str]) -> "Sizes":
        """Makes the measure for a transformers model and the names of its labels."""
        decoder_only = not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        causal = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        return cls(tuple(names), (causal or getattr(model, "loss_type", None) == "ForCausalLM") and decoder_only)

    def __call__(self, batch: Mapping[str, Any]) -> Size:
        """Measures a batch; labels that are no class numbers, such as floats, count row by row."""
        rows = rows_of(batch)
        labels = {name: batch[name] for name in self.names if isinstance(batch.get(name), Tensor)}
        return Size(rows, {name: self._counted(name, batch, value, rows) for name, value in labels.items()})

    def _counted(self, name: str, batch: Mapping[str, Any], labels: Tensor, rows: int) -> int:
        if labels.is_floating_point() or labels.dtype == torch.bool:
            return rows
        if name in _SPANS:
            length = next(v.shape[1] for v in batch.values() if isinstance(v, Tensor) and v.dim() > 1)
            return int((labels < length).sum())  # beyond the row is nowhere, as the models have it
        return int(counted(batch.get("shift_labels", labels[..., 1:]) if self.shifted and name == "labels" else labels))


def counted(labels: Tensor) -> Tensor:
    """Counts the labels that are not -100, 0-dim."""
    return labels.ne(_IGNORED).sum()


def joint(sizes: Iterable[Size]) -> Size:
    """Adds up sizes."""
    parts = list(sizes)
    names = parts[0].counted if parts else ()
    return Size(sum(p.rows for p in parts), {name: sum(p.counted[name] for p in parts) for name in names})


def over_processes(size: Size, device: torch.device) -> Size:
    """Divides the counts of all processes evenly among them, since data parallel averages their gradients."""
    if not size.counted:
        return size
    together = torch.tensor([int(count) for count in size.counted.values()], device=device)
    dist.all_reduce(together)
    shares = [Fraction(count, dist.get_world_size()) for count in together.tolist()]
    return Size(size.rows, dict(zip(size.counted, shares, strict=True)))


def with_items(loss: Any, sizes: Sizes) -> Any:
    """Wraps a user's loss function so that ``num_items_in_batch`` is always given: in training, its micro-batch's.

    So it gives the mean over a micro-batch whether it divides by that number or not.
    """

    def told(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        if num_items_in_batch is None and isinstance(labels, Tensor):
            num_items_in_batch = counted(labels[..., 1:] if sizes.shifted else labels)
        return loss(outputs, labels, num_items_in_batch=num_items_in_batch)

    return loss and told


def rows_of(batch: Mapping[str, Any]) -> int:
    """Counts the rows of a batch."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())
