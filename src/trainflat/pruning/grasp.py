"""GraSP, gradient signal preservation (Wang, Zhang and Grosse, ICLR 2020, arXiv:2002.07376)."""

from typing import Any

from torch import nn

from trainflat.core.settings import checked
from trainflat.objective import Objective
from trainflat.pruning.gradient_flow import GradientFlowPruner, Products, RowCount, Temperature, gradient_norm_change


class GraspPruner(GradientFlowPruner):
    r"""Drops the weights whose removal raises the norm of the gradient most: the score is θ·Hg.

    The paper scores :math:`S(-\theta) = -\theta \cdot Hg` and drops the highest. Meant for a network before training;
    Lubana and Dick (ICLR 2021) find that raising the norm can harm a trained one, where ``gradient-norm`` is safer.

    Args:
        model: As for :class:`GradientFlowPruner`, and so are ``rows`` and ``batch_size``.
        rows: On which g and H are taken.
        batch_size: Of a micro-batch.
        temperature: Divides the logits; 200 in the published code, at which all classes look alike.
        **given: As for :class:`Pruner`.

    Raises:
        InputError: also for a temperature that is not above 0.
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        *,
        rows: RowCount = 512,
        batch_size: RowCount = 16,
        temperature: Temperature = 200.0,
        **given: Any,
    ) -> None:
        super().__init__(model, rows=rows, batch_size=batch_size, **given)
        self.temperature = temperature

    def importance(self, objective: Objective) -> Products:
        return gradient_norm_change(objective, self.weights, self.masks, self.temperature)
