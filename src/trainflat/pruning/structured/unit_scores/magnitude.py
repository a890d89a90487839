"""Magnitude of units (Li et al., ICLR 2017, arXiv:1608.08710, for filters)."""

import torch

from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore


class MagnitudeUnits(UnitScore):
    r"""Scores a unit by the squared norm of its columns of the output matrix, as a share of the whole matrix.

    .. math:: s_i = \|W_{:,i}\|^2 / \|W\|^2

    Departs from Li et al., who add absolute values and compare within one layer: shares of squares add up to 1 in every
    sub-layer, so that these can be compared. Looks at no data.
    """

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        found = []
        for sub in inputs.sub_layers():
            squares = sub.matrix(inputs.model).weight.detach().double().square().sum(0)
            scores = squares.view(-1, sub.width).sum(1)
            found.append(Ranking.by(scores / scores.sum().clamp_min(torch.finfo(torch.float64).tiny)))
        return found
