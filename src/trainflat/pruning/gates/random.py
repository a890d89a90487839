"""Gradual random pruning: the floor that every score has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.gates.held import HeldGate


class GradualRandom(HeldGate):
    """Drops weights at random, in one order that the run's seed draws."""

    def importance(self) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return {name: torch.rand(w.shape, generator=generator) for name, w in self.weights.items()}
