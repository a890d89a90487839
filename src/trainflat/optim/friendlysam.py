"""Friendly Sharpness-Aware Minimization (Li et al., CVPR 2024, arXiv:2403.12350)."""

from typing import Annotated, ClassVar

from torch import Tensor

from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, steepest, to_ball
from trainflat.optim.vectors import take_gradients

_SIGMA = Number("is the share of the mean that is subtracted, a number >= 0", lambda x: x >= 0)
_LAMBDA = Number("is the decay of the running mean, in [0, 1)", lambda x: 0 <= x < 1)


class FriendlySAM(FlatOptimizer):
    r"""SAM that perturbs along the noise of the mini-batch: its gradient minus a running mean of gradients.

    With :math:`g_t = \nabla L(w_t)` of the mini-batch, algorithm 1 of the paper in the order of the authors' code::

        d_t  = g_t - sigma * m_(t-1)        m_0 = g_0, and d_0 = g_0
        e(w) = rho * d_t / ||d_t||_2        the norm runs over all parameters together
        m_t  = lmbda * m_(t-1) + (1 - lmbda) * g_t

    The paper subtracts ``m_t``; for its sigma = 1 the direction is the same, since g_t - m_t = lmbda (g_t - m_(t-1)).
    ``m`` averages raw gradients, neither scaled nor clipped, or it would jump whenever the loss scale does: with a
    ``GradScaler`` of your own set ``optimizer.loss_scale = scaler.get_scale()`` before each step.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of the ball, as an L2 norm over all parameters.
        sigma: Share of the running mean that is subtracted; 0 is SAM.
        lmbda: Decay of the running mean, in [0, 1); :math:`\lambda` in the paper.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = FriendlySAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> weight.sum().backward()
        >>> with optimizer.perturbed():
        ...     weight.sum().backward()
        >>> optimizer.step()
        >>> optimizer.memory[weight]["mean"]
        tensor([1., 1.])
    """

    # The running mean is state that checkpoints save, so it must be the same on all processes.
    shares_first_gradient: ClassVar[bool] = True

    rho: Radius = 0.05
    sigma: Annotated[float, _SIGMA] = 1.0
    lmbda: Annotated[float, _LAMBDA] = 0.6

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        gradients = steepest(groups)
        self._first = take_gradients({"params": params} for _, params in groups)
        if not gradients:
            return NO_PERTURBATION
        directions = [
            [self._friendly(p, g) for p, g in zip(params, grads, strict=True)]
            for (_, params), grads in zip(groups, gradients, strict=True)
        ]
        return to_ball(groups, directions)

    def remember(self) -> None:
        first, self._first = self._first, {}
        for p, g in first.items():
            raw = g / self.loss_scale if self.loss_scale != 1 else g
            if "mean" in self.memory.get(p, {}):
                self.memory[p]["mean"].lerp_(raw.to(self.memory[p]["mean"].dtype), 1 - self.lmbda)
            else:
                self.remembered("mean", [p])[0].copy_(raw)  # m_0 = g_0: from 0 it would need Adam's bias correction

    def _friendly(self, p: Tensor, g: Tensor) -> Tensor:
        mean = self.memory.get(p, {}).get("mean")
        if mean is None or self.sigma == 0:
            return g
        return g.sub(mean, alpha=self.sigma * self.loss_scale)  # g is still scaled, the mean is not
