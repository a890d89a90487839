"""Single-step Sharpness-Aware Minimization (Ji et al., NeurIPS 2024)."""

from collections.abc import Mapping
from typing import Any

from trainflat.optim.base import FlatOptimizer
from trainflat.optim.directions import previous_gradients, store_gradients, to_sphere
from trainflat.optim.perturbation import Perturbation


class S2SAM(FlatOptimizer):
    r"""SAM at the cost of one pass: perturbs along the gradient of the previous step.

    With :math:`g_{t-1}` the gradient that the previous step took, itself taken at displaced weights::

        e(w) = rho * g_{t-1} / ||g_{t-1}||    the norm runs over all parameters together
        g_t  = grad L(w + e)                  what the base optimizer steps with

    The first step perturbs nothing. Proposed for sparse training: the gradient of a pruned weight is 0, so it is not
    perturbed either. Clipping and loss scales change the length of the stored gradient, not its direction. Memory: one
    more copy of the weights.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of the ball, as an L2 norm over all parameters; :math:`\rho` in the paper.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([2.0, 0.0]))
        >>> optimizer = S2SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = weight.square().sum()
        ...     loss.backward()
        ...     return loss.item()
        >>> optimizer.step(closure)  # at w itself; then w is (1.6, 0)
        4.0
        >>> round(optimizer.step(closure), 2)  # 0.5 along the previous gradient: the loss at (2.1, 0)
        4.41
    """

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @property
    def first_pass(self) -> bool:
        return False

    def perturbation(self) -> Perturbation:
        return to_sphere(previous_gradients(self))

    def remember(self) -> None:
        store_gradients(self)
