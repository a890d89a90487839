"""Loss preservation (Molchanov et al., CVPR 2019, arXiv:1906.10771; Lubana and Dick, ICLR 2021, arXiv:2009.11839)."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.objective import Objective
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Decay, TrueOrFalse
from trainflat.pruning.scores.base import ScoreInputs
from trainflat.pruning.scores.gradient_flow import MeasuredScore, Products, loss_change
from trainflat.pruning.scores.observed import ObservedScore


class LossPreservation(MeasuredScore):
    r"""Scores a weight by how much its removal changes the loss: :math:`|\theta \cdot g|`.

    Args:
        rows, batch_size: As for :class:`MeasuredScore`.
        biased: The score is :math:`|\theta^2 g|` instead: magnitude times loss preservation, as the code of Lubana and
            Dick has it; their paper has the distance from the initial weights for one θ.
    """

    biased: TrueOrFalse = False

    def products(self, objective: Objective, weights: Mapping[str, Tensor], masks: Masks | None) -> Products:
        change = loss_change(objective, weights, masks)
        return {name: c * weights[name].detach() for name, c in change.items()} if self.biased else change


class RunningLossPreservation(ObservedScore):
    r"""Scores a weight by the running mean of :math:`|\theta \cdot g|` over the batches of training.

    The mean is an exponential one, :math:`s \leftarrow \beta s + (1 - \beta) |\theta g|`, so a choice costs no pass.
    Departs from Molchanov et al., who average squares of units between two choices, and from
    :class:`LossPreservation`, which takes the absolute value of the mean over its rows: near a minimum that mean
    vanishes for every weight, while batches still show which weights the loss leans on.

    Args:
        beta: Share that the mean keeps of itself in each step, in [0, 1).
        biased: As for :class:`LossPreservation`.
    """

    remembers = ("mean",)

    beta: Decay = 0.99
    biased: TrueOrFalse = False

    def remember(self, name: str, weight: Tensor, grad: Tensor, lr: float) -> None:
        change = grad.mul_(weight)
        if self.biased:
            change.mul_(weight)
        self.memory["mean"][name].lerp_(change.abs_(), 1 - self.beta)

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        self.require_seen()
        return self.memory["mean"]
