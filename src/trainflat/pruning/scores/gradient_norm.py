"""Gradient-norm preservation (Lubana and Dick, ICLR 2021, arXiv:2009.11839)."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.core.settings import checked
from trainflat.objective import Objective
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import RowCount, Temperature
from trainflat.pruning.scores.gradient_flow import MeasuredScore, Products, gradient_norm_change


class GradientNorm(MeasuredScore):
    r"""Scores a weight by how much its removal changes the norm of the gradient: :math:`|\theta \cdot H g|`.

    Args:
        rows: As for :class:`MeasuredScore`.
        batch_size: As for :class:`MeasuredScore`.
        temperature: Divides the logits; the paper's is 1.

    Raises:
        InputError: for numbers of rows below 1, and a temperature that is not above 0.
    """

    @checked
    def __init__(self, rows: RowCount = 512, batch_size: RowCount = 16, temperature: Temperature = 1.0) -> None:
        super().__init__(rows, batch_size)
        self.temperature = temperature

    def products(self, objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None) -> Products:
        return gradient_norm_change(objective, weights, masks, self.temperature)
