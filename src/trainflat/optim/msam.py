"""Momentum-SAM (Becker, Altrock and Risse, 2024, arXiv:2401.12033)."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius
from trainflat.optim.directions import momentum_directions, require_momentum, to_sphere
from trainflat.optim.perturbation import Perturbation


class MSAM(FlatOptimizer):
    r"""SAM at the cost of one pass: perturbs along the base optimizer's momentum.

    With m the base optimizer's momentum (``exp_avg`` of Adam, ``momentum_buffer`` of SGD)::

        e(w) = -rho * m / ||m||         the norm runs over all parameters together
        w    = w - lr * grad L(w + e)   or whatever step the base optimizer makes of it

    The sign is the paper's: m averages past gradients, so the weights are perturbed along the coming step and beyond,
    like Nesterov's look-ahead but by :math:`\rho` whatever the learning rate, not uphill like SAM's. Where that
    overshoots the valley the loss is higher again, and its gradient leads back.

    Departs from the published code, whose weights stay perturbed between steps: here they are restored before each
    step, so that evaluation and checkpoints see them. The gradients of the loss are the same, and without weight decay
    so are the steps. L2 decay (SGD, Adam) is of the restored weights here, of the perturbed ones in the published code;
    its AdamW applies decay after the step, torch's before. Before the first step there is no momentum and nothing is
    perturbed.

    Args:
        params, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        base_optimizer: Class of the optimizer that takes the step; it must have a momentum.
        rho: Length of the perturbation. The published AdamW form takes about 3, with learning rates near 1e-3 from
            scratch; a step of AdamW is about lr * sqrt(number of weights) long, so fine-tuning wants far less.

    Raises:
        InputError: for a base optimizer without momentum, such as SGD with ``momentum=0``.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([2.0, 0.0]))
        >>> optimizer = MSAM([weight], torch.optim.SGD, rho=0.5, lr=0.1, momentum=0.9)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = weight.square().sum()
        ...     loss.backward()
        ...     return loss.item()
        >>> optimizer.step(closure)  # at w itself; then w is (1.6, 0) and m is (4, 0)
        4.0
        >>> round(optimizer.step(closure), 2)  # 0.5 against m: the loss at (1.1, 0)
        1.21
    """

    rho: Radius = 0.3

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @classmethod
    def check_base(cls, base: Optimizer, options: Mapping[str, Any]) -> None:
        require_momentum(cls, base, base.param_groups[0])

    @property
    def first_pass(self) -> bool:
        return False

    def perturbation(self) -> Perturbation:
        return to_sphere(momentum_directions(self), sign=-1.0)

    def _prepare(self, group: dict[str, Any]) -> None:
        super()._prepare(group)
        require_momentum(type(self), self.base, group)
