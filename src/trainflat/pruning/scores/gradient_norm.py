"""What a removal does to the norm of the gradient: GraSP and gradient-norm preservation."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from trainflat.objective import Objective
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Temperature
from trainflat.pruning.scores.gradient_flow import MeasuredScore, Products, gradient_norm_change


class GradientNorm(MeasuredScore):
    r"""Scores a weight by how much its removal changes the norm of the gradient: :math:`|\theta \cdot H g|`.

    Lubana and Dick, ICLR 2021, arXiv:2009.11839.

    Args:
        rows, batch_size: As for :class:`MeasuredScore`.
        temperature: Divides the logits; the paper's is 1.
    """

    temperature: Temperature = 1.0

    def products(self, objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None) -> Products:
        return gradient_norm_change(objective, weights, masks, self.temperature)


class Grasp(GradientNorm):
    r"""Scores a weight by how much its removal lowers the norm of the gradient: :math:`\theta \cdot H g`.

    GraSP, gradient signal preservation (Wang, Zhang and Grosse, ICLR 2020, arXiv:2002.07376), scores
    :math:`S(-\theta) = -\theta \cdot Hg` and drops the highest, once and before training. Lubana and Dick, who also use
    it gradually, find that raising the norm can harm a trained network, where ``gradient-norm`` is safer.

    Args:
        rows, batch_size: As for :class:`MeasuredScore`.
        temperature: Divides the logits; 200 in the published code, at which all classes look alike.
    """

    signed: ClassVar[bool] = True
    temperature: Temperature = 200.0
