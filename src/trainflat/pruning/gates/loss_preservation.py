"""Gradual loss preservation (Molchanov et al., CVPR 2019, arXiv:1906.10771; Lubana and Dick, ICLR 2021)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainflat.core.schedules import Schedule
from trainflat.pruning.base import Scope
from trainflat.pruning.gates.checks import truth
from trainflat.pruning.gates.observed import ObservedGate, share_of_past


class GradualLossPreservation(ObservedGate):
    r"""Drops the weights whose removal changes the loss least: the score is the mean of |θ·g| over steps.

    The mean is an exponential one over the batches of training, :math:`s \leftarrow \beta s + (1 - \beta) |\theta g|`,
    so a choice costs no pass. Departs from Molchanov et al., who average squares of units between two choices, and from
    :class:`~trainflat.pruning.LossPreservationPruner`, which takes the absolute value of the mean over its rows: near a
    minimum that mean vanishes for every weight, while batches still tell which weights the loss leans on.

    Args:
        model: As for :class:`~trainflat.pruning.gates.held.HeldGate`, and so are all but the last two.
        sparsity: Share to drop.
        scope: Who competes.
        schedule: When the sparsity rises; above 0 only after the first step.
        every: Optimizer steps between two choices.
        beta: Share that the mean keeps of itself in each step, in [0, 1).
        biased: The score is of :math:`|\theta^2 g|` instead, magnitude times loss preservation, as the code of Lubana
            and Dick (arXiv:2009.11839) has it; their paper has the distance from the initial weights for one θ.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> gate = GradualLossPreservation(model, sparsity=0.5, schedule="linear", every=1)
        >>> gate.begin(total_steps=1)
        >>> model(torch.tensor([[1.0, 9.0]])).sum().backward()  # |θ g| is 2 and 9
        >>> gate.observe(lr=0.1)
        >>> gate.advance(1)
        >>> model.weight.tolist()
        [[0.0, -1.0]]
    """

    remembers = ("mean",)

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        scope: Scope = "layer",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        every: int = 100,
        *,
        beta: float = 0.99,
        biased: bool = False,
    ) -> None:
        super().__init__(model, sparsity, scope, schedule, every)
        self.beta, self.biased = share_of_past("beta", beta), truth("biased", biased)

    def remember(self, name: str, weight: Tensor, grad: Tensor, lr: float) -> None:
        change = grad.mul_(weight)
        if self.biased:
            change.mul_(weight)
        self.memory["mean"][name].lerp_(change.abs_(), 1 - self.beta)

    def importance(self) -> Mapping[str, Tensor]:
        self.require_seen()
        return self.memory["mean"]
