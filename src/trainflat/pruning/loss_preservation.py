"""Loss preservation (Molchanov et al., CVPR 2019, arXiv:1906.10771; Lubana and Dick, ICLR 2021, arXiv:2009.11839)."""

from typing import Any

from torch import nn

from trainflat.core.settings import checked
from trainflat.objective import Objective
from trainflat.pruning.gradient_flow import GradientFlowPruner, Products, RowCount, loss_change


class LossPreservationPruner(GradientFlowPruner):
    r"""Drops the weights whose removal changes the loss least: the score is |θ·g|.

    Args:
        model: As for :class:`GradientFlowPruner`, and so are ``rows`` and ``batch_size``.
        rows: On which g is taken.
        batch_size: Of a micro-batch.
        biased: The score is :math:`|\theta^2 g|` instead: magnitude times loss preservation, as the code of Lubana and
            Dick has it; their paper has the distance from the initial weights for one θ.
        **given: As for :class:`Pruner`.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> rows = [{"x": torch.tensor([[1.0, 9.0]])}]
        >>> bowl = Objective(model, rows, loss=lambda model, batch: (model.weight.square() * batch["x"]).sum() / 2)
        >>> LossPreservationPruner(model, sparsity=0.5, objective=bowl).select()["weight"]
        tensor([[False,  True]])
    """

    @checked
    def __init__(
        self, model: nn.Module, *, rows: RowCount = 512, batch_size: RowCount = 16, biased: bool = False, **given: Any
    ) -> None:
        super().__init__(model, rows=rows, batch_size=batch_size, **given)
        self.biased = biased

    def importance(self, objective: Objective) -> Products:
        change = loss_change(objective, self.weights, self.masks)
        return {name: (c * self.weights[name].detach() if self.biased else c).abs() for name, c in change.items()}
