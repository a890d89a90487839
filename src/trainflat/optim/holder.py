"""Declares what a flat optimizer asks of masks; pruning is on the same floor, hence a protocol and no import."""

from typing import Protocol

from torch import Tensor


class Holder(Protocol):
    """Keeps pruned weights at zero, as :class:`trainflat.pruning.MaskEnforcer` does."""

    def mask_gradients(self) -> None:
        """Sets the gradients of pruned weights to zero."""

    def mask_weights(self) -> None:
        """Sets the pruned weights to zero."""

    def factor(self, weight: Tensor) -> Tensor | None:
        """Returns 1 where a weight is kept and 0 where it is pruned; None without a mask."""
