"""Friendly Sharpness-Aware Minimization (Li et al., CVPR 2024, arXiv:2403.12350)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.optim.base import FlatOptimizer
from trainflat.optim.checks import number
from trainflat.optim.moves import NOWHERE, Perturbation
from trainflat.optim.sam import steepest, to_ball
from trainflat.optim.vectors import Gradients, take_gradients


class FriendlySAM(FlatOptimizer):
    r"""SAM that climbs along the noise of the mini-batch: its gradient less the running mean of gradients.

    With :math:`g_t = \nabla L(w_t)` of the mini-batch, algorithm 1 of the paper in the order of the authors' code::

        d_t  = g_t - sigma * m_(t-1)        m_0 = g_0, and d_0 = g_0
        e(w) = rho * d_t / ||d_t||_2        the norm runs over all parameters together
        m_t  = lmbda * m_(t-1) + (1 - lmbda) * g_t

    The paper subtracts ``m_t``; for its sigma = 1 that is the same direction. ``m`` holds raw gradients, neither scaled
    nor clipped: with a ``GradScaler`` of your own set ``optimizer.loss_scale = scaler.get_scale()`` before each step.

    Args:
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of the ball, as an L2 norm over all parameters.
        sigma: Share of the running mean that is taken off; 0 is SAM.
        lmbda: Decay of the running mean, in [0, 1); :math:`\lambda` in the paper.
        exclude: Parameters to leave in place and out of the norm: parts of names, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = FriendlySAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> weight.sum().backward()
        >>> with optimizer.perturbed():
        ...     weight.sum().backward()
        >>> optimizer.step()
        >>> optimizer.memory[weight]["mean"]
        tensor([1., 1.])
    """

    shares_first_gradient: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        sigma: float = 1.0,
        lmbda: float = 0.6,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        self.sigma = number("sigma", sigma, "the share of the mean that is taken off, a number >= 0", lambda x: x >= 0)
        self.lmbda = number("lmbda", lmbda, "the decay of the running mean, in [0, 1)", lambda x: 0 <= x < 1)
        self._first: Gradients = {}
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        gradients = steepest([[p.grad for p in params if p.grad is not None] for _, params in groups], 2)
        self._first = take_gradients({"params": params} for _, params in groups)
        if not gradients:
            return NOWHERE
        directions = [
            [self._friendly(p, g) for p, g in zip(params, grads, strict=True)]
            for (_, params), grads in zip(groups, gradients, strict=True)
        ]
        return to_ball(groups, directions)

    def remember(self) -> None:
        first, self._first = self._first, {}
        for p, g in first.items():
            raw = g / self.loss_scale if self.loss_scale != 1 else g  # scales come and go, the mean stays
            if "mean" in self.memory.get(p, {}):
                self.memory[p]["mean"].lerp_(raw.to(self.memory[p]["mean"].dtype), 1 - self.lmbda)
            else:
                self.remembered("mean", [p])[0].copy_(raw)

    def _friendly(self, p: Tensor, g: Tensor) -> Tensor:
        mean = self.memory.get(p, {}).get("mean")
        if mean is None or self.sigma == 0:
            return g
        return g.sub(mean, alpha=self.sigma * self.loss_scale)
