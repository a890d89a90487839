"""PINS (Ren and Zhu, Findings of ACL 2023): pruning by smoothed importance, times how uncertain it is."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainflat.core.schedules import Schedule
from trainflat.pruning.base import Scope
from trainflat.pruning.gates.checks import whole
from trainflat.pruning.gates.observed import ObservedGate, share_of_past


class PINS(ObservedGate):
    r"""Drops the weights where "prune" and "keep and step" differ least in loss, and have long done so.

    To first order the loss changes by :math:`-\theta g` if a weight is removed and by :math:`-\eta g^2` if it takes a
    step of gradient descent. With the mean I of the difference over a window of :math:`\Delta T` steps::

        I = mean | -θ g + η g² |                over the window
        Ī = β1 Ī + (1 - β1) I                   importance
        U = β2 U + (1 - β2) | I - Ī |           uncertainty, by the Ī of this window
        rank by Ī U

    η is the learning rate, whatever the optimizer makes of the gradient, as published. Before the first window is
    complete the ranking is the one it would have if it were (Ī U is then a multiple of I²).

    Departs from the published code in five points. It scores after gradients were clipped, and with the learning rate
    of the step to come; here before, and with the step's own. Its window ends a step before the choice, here with it.
    It prunes the biases of its layers too and not the pooler; here all matrices that are
    :func:`~trainflat.anatomy.params.prunable`, and no biases. Its pruned weights may come back; here not
    (:class:`HeldGate`).

    The paper's self-regularisation, a teacher that is the best checkpoint so far, is not part of the gate, so that
    every method can have it: in ``training.distillation``, beside the fine-tuned ``teacher`` with which the paper
    begins, ``weight: entropy, renew: best``.

    Args:
        model: As for :class:`~trainflat.pruning.gates.held.HeldGate`.
        sparsity: Share to drop.
        scope: Who competes; published ``"global"``.
        schedule: When the sparsity rises; above 0 only after the first step. Published: cubic.
        every: Optimizer steps between two choices; published: a window, and 1 once the schedule has arrived.
        window: :math:`\Delta T`, in optimizer steps.
        beta1: Share that the importance keeps of itself from window to window, in [0, 1).
        beta2: The same of the uncertainty.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> gate = PINS(model, sparsity=0.5, schedule="linear", every=1)
        >>> gate.begin(total_steps=1)
        >>> model(torch.tensor([[1.0, 9.0]])).sum().backward()
        >>> gate.observe(lr=0.1)  # |-2 + 0.1| = 1.9 and |9 + 8.1| = 17.1
        >>> gate.advance(1)
        >>> model.weight.tolist()
        [[0.0, -1.0]]
    """

    remembers = ("window", "importance", "uncertainty")

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        scope: Scope = "global",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        every: int = 10,
        *,
        window: int = 10,
        beta1: float = 0.85,
        beta2: float = 0.99,
    ) -> None:
        super().__init__(model, sparsity, scope, schedule, every)
        self.window = whole("window", window)
        self.beta1, self.beta2 = share_of_past("beta1", beta1), share_of_past("beta2", beta2)

    def remember(self, name: str, weight: Tensor, grad: Tensor, lr: float) -> None:
        summed = self.memory["window"][name]
        summed.add_((lr * grad).sub_(weight).mul_(grad).abs_())
        if self.seen % self.window == 0:
            self._close(summed.div_(self.window), self.memory["importance"][name], self.memory["uncertainty"][name])

    def _close(self, mean: Tensor, importance: Tensor, uncertainty: Tensor) -> None:
        importance.lerp_(mean, 1 - self.beta1)
        uncertainty.lerp_(mean.sub_(importance).abs_(), 1 - self.beta2)
        mean.zero_()

    def importance(self) -> Mapping[str, Tensor]:
        self.require_seen()
        if self.seen < self.window:
            return self.memory["window"]
        # The root of the product: the same order, and nothing of 1e-20 squared is lost to float32.
        pairs = self.memory["uncertainty"]
        return {name: one.sqrt().mul_(pairs[name].sqrt()) for name, one in self.memory["importance"].items()}
