"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv:1710.01878; the baseline of Sanh et al. 2020)."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.pruning.gates.held import HeldGate
from trainflat.pruning.keys import Magnitudes


class GradualMagnitude(HeldGate):
    """Drops the weights with the smallest absolute value.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 8)
        >>> gate = GradualMagnitude(model, sparsity=0.75, schedule="linear", every=1)
        >>> gate.begin(total_steps=3)
        >>> for step in range(3):
        ...     gate.advance(step + 1)
        ...     print(int((model.weight != 0).sum()))
        48
        32
        16
    """

    def importance(self) -> Mapping[str, Tensor]:
        return Magnitudes(self.weights)
