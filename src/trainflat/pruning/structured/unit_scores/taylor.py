"""First-order importance of units (Michel et al., NeurIPS 2019, arXiv:1905.10650; Molchanov et al., ICLR 2017)."""

from torch import Tensor

from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore
from trainflat.pruning.structured.unit_scores.labels import mean_over_rows


class TaylorUnits(UnitScore):
    r"""Scores a unit by how much the loss of a row changes to first order without it, in the mean over rows.

    .. math:: s_i = \frac{1}{N} \sum_n |\partial L_n / \partial m_i|

    with a gate m on the unit's output, at 1. Departs from Michel et al., who divide each layer's scores by their norm:
    undivided, they are changes of one loss, and sub-layers can be compared. Per row, so that batches do not matter.
    """

    labelled = True

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        return [Ranking.by(scores) for scores in mean_over_rows(inputs, Tensor.abs)]
