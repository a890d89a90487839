"""Random pruning: the control that any other score has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.scores.base import Score, ScoreInputs


class Random(Score):
    """Scores a weight by a number that the seed draws; for one seed a sparser mask is a subset of a denser one."""

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        # drawn on the CPU, so that a seed means the same on every device
        generator = torch.Generator().manual_seed(inputs.seed)
        return {name: torch.rand(w.shape, generator=generator) for name, w in inputs.weights.items()}
