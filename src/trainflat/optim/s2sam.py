"""Single-step Sharpness-Aware Minimization (Ji et al., NeurIPS 2024)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from trainflat.optim.base import FlatOptimizer
from trainflat.optim.directions import keep_gradients, onto_sphere, previous_course
from trainflat.optim.moves import Perturbation


class S2SAM(FlatOptimizer):
    r"""SAM at the price of one pass: the weights climb along the gradient of the step before.

    With :math:`g_{t-1}` the gradient that the previous step took, itself taken at displaced weights::

        e(w) = rho * g_{t-1} / ||g_{t-1}||    the norm runs over all parameters together
        g_t  = grad L(w + e)                  what the base optimizer steps with

    The first step displaces nothing. Proposed for sparse training: the gradient of a pruned weight is 0, so it is not
    displaced either. Clipping and loss scales change the length of the remembered gradient, not its direction. Costs
    the memory of one more copy of the weights.

    Args:
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of the ball, as an L2 norm over all parameters; :math:`\rho` in the paper.
        exclude: Parameters to leave in place and out of the norm: parts of names, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([2.0, 0.0]))
        >>> optimizer = S2SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = weight.square().sum()
        ...     loss.backward()
        ...     return loss.item()
        >>> optimizer.step(closure)  # at w itself; then w is (1.6, 0)
        4.0
        >>> round(optimizer.step(closure), 2)  # 0.5 up the gradient of before: the loss at (2.1, 0)
        4.41
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @property
    def first_pass(self) -> bool:
        return False

    def perturbation(self) -> Perturbation:
        return onto_sphere(previous_course(self))

    def remember(self) -> None:
        keep_gradients(self)
