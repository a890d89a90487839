"""Checks that pruned weights are zero, and says what zeros do for speed."""

from torch import nn

from trainflat.pruning import Masks

SPEED_NOTE = (
    "Unstructured zeros save storage, not time: dense kernels multiply zeros at full speed, so the pruned model packs "
    "into fewer bytes but runs no faster."
)
"""To be said before a run that prunes single weights."""


def check_zeros(model: nn.Module, masks: Masks) -> None:
    """Checks that every weight that the masks drop is exactly zero.

    Raises:
        ZerosRevived: names the first matrix where one is not.
    """
    masks.check(model)
