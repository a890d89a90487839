"""Gradient-norm preservation (Lubana and Dick, ICLR 2021, arXiv:2009.11839)."""

from typing import Any

from torch import nn

from trainflat.core.settings import checked
from trainflat.objective import Objective
from trainflat.pruning.gradient_flow import GradientFlowPruner, Products, RowCount, Temperature, gradient_norm_change


class GradientNormPruner(GradientFlowPruner):
    """Drops the weights whose removal changes the norm of the gradient least: the score is |θ·Hg|.

    Args:
        model: As for :class:`GradientFlowPruner`, and so are ``rows`` and ``batch_size``.
        rows: On which g and H are taken.
        batch_size: Of a micro-batch.
        temperature: Divides the logits; the paper's is 1.
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
        temperature: Temperature = 1.0,
        **given: Any,
    ) -> None:
        super().__init__(model, rows=rows, batch_size=batch_size, **given)
        self.temperature = temperature

    def importance(self, objective: Objective) -> Products:
        change = gradient_norm_change(objective, self.weights, self.masks, self.temperature)
        return {name: c.abs() for name, c in change.items()}
