"""Fisher information of gates (Kwon et al., NeurIPS 2022, arXiv:2204.09656)."""

from torch import Tensor

from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore
from trainflat.pruning.structured.unit_scores.labels import mean_over_rows


class FisherUnits(UnitScore):
    r"""Scores a unit by the squared gradient of its gate, the diagonal of the empirical Fisher information.

    .. math:: s_i = \frac{1}{2N} \sum_n (\partial L_n / \partial m_i)^2

    which is the rise of the loss to second order if gates do not interact, so sub-layers can be compared. Departs from
    the authors' code, which squares the gradient of each batch: per row, batches do not matter. Their rearrangement by
    the covariance within a layer is left to :class:`~trainflat.pruning.structured.unit_scores.obs.ObsUnits`.
    """

    labelled = True

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        return [Ranking.by(scores / 2) for scores in mean_over_rows(inputs, Tensor.square)]
