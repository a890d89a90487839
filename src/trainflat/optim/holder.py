"""What a flat optimizer asks of masks. Pruning stands on the same floor, so it is known by its shape only."""

from typing import Protocol

from torch import Tensor


class Holder(Protocol):
    """What keeps pruned weights at zero, such as :class:`trainflat.pruning.MaskEnforcer`."""

    def mask_gradients(self) -> None:
        """Sets the gradients of pruned weights to zero."""

    def mask_weights(self) -> None:
        """Sets the pruned weights to zero."""

    def factor(self, weight: Tensor) -> Tensor | None:
        """1 where a weight is kept and 0 where it is pruned; None for one that no mask is for."""
