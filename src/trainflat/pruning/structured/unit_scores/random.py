"""Random choice of units: the control for every other score."""

import torch
from torch import Generator

from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore


class RandomUnits(UnitScore):
    """Draws a unit's score between 0 and 1, and divides by the number of units, so that sub-layers count alike."""

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        generator = Generator().manual_seed(inputs.seed)
        sizes = [len(sub.units) for sub in inputs.sub_layers()]
        return [Ranking.by(torch.rand(n, generator=generator, dtype=torch.float64) / n) for n in sizes]
