"""PINS (Ren and Zhu, Findings of ACL 2023): smoothed importance, times how uncertain it is."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.pruning.options import Decay, Steps
from trainflat.pruning.scores.base import ScoreInputs
from trainflat.pruning.scores.observed import ObservedScore


class SmoothedImportance(ObservedScore):
    r"""Scores a weight by how far "prune" and "keep and step" differ in loss, and by how uncertain that is.

    To first order the loss changes by :math:`-\theta g` if a weight is removed and by :math:`-\eta g^2` if it takes a
    step of gradient descent. With the mean I of the difference over a window of :math:`\Delta T` steps::

        I = mean | -θ g + η g² |                over the window
        Ī = β1 Ī + (1 - β1) I                   importance
        U = β2 U + (1 - β2) | I - Ī |           uncertainty, by the Ī of this window
        rank by Ī U

    η is the learning rate, whatever the optimizer makes of the gradient, as published. Before the first window is
    complete the ranking is the one it would have if it were (Ī U is then a multiple of I²).

    Departs from the published code in that it scores before gradients are clipped and with the step's own learning
    rate (there after, and with that of the step to come), and in that its window ends with the choice (there a step
    before).

    Args:
        window: :math:`\Delta T`, in optimizer steps.
        beta1: Share that the importance keeps of itself from window to window, in [0, 1).
        beta2: The same of the uncertainty.
    """

    remembers = ("window", "importance", "uncertainty")

    window: Steps = 10
    beta1: Decay = 0.85
    beta2: Decay = 0.99

    def remember(self, name: str, weight: Tensor, grad: Tensor, lr: float) -> None:
        summed = self.memory["window"][name]
        summed.add_((lr * grad).sub_(weight).mul_(grad).abs_())
        if self.seen % self.window == 0:
            self._close(summed.div_(self.window), self.memory["importance"][name], self.memory["uncertainty"][name])

    def _close(self, mean: Tensor, importance: Tensor, uncertainty: Tensor) -> None:
        importance.lerp_(mean, 1 - self.beta1)
        uncertainty.lerp_(mean.sub_(importance).abs_(), 1 - self.beta2)
        mean.zero_()

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        self.require_seen()
        if self.seen < self.window:
            return self.memory["window"]
        # The root of the product: the same order, and nothing of 1e-20 squared is lost to float32.
        pairs = self.memory["uncertainty"]
        return {name: one.sqrt().mul_(pairs[name].sqrt()) for name, one in self.memory["importance"].items()}
