"""Efficient Sharpness-Aware Minimization (Du et al., ICLR 2022, arXiv:2110.03141)."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from trainflat.core.rng import generator
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius, Seed
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, steepest, to_ball
from trainflat.optim.vectors import joint_norm

# Cost of the forward pass that ranks the rows, as a share of a whole pass: a backward pass takes twice its forward.
_FORWARD_ALONE = 1 / 3


_BETA = Number("is the share of weights that ESAM perturbs, in (0, 1]", lambda x: 0 < x <= 1)
_GAMMA = Number("is the share of rows in ESAM's second pass, in (0, 1]", lambda x: 0 < x <= 1)


class ESAM(FlatOptimizer):
    r"""SAM that perturbs a random part of the weights, and takes its second gradient over the rows most affected.

    With :math:`g = \nabla L(w)`, sections 3.1 (stochastic weight perturbation) and 3.2 (sharpness-sensitive data
    selection) of the paper::

        e(w) = rho * (m / beta) * g / ||g||_2     m_i = 1 with probability beta, else 0
        w    = w - lr * grad L_B+(w + e(w))       B+: the share gamma of the rows with the largest l(w + e) - l(w)

    ``m`` is drawn per weight, as in the paper; the authors' code draws it per tensor and leaves undrawn tensors out of
    the norm. The authors' code rounds the number of rows down, here it is rounded up. Draws depend on ``seed`` and the
    number of the step alone: the same after resuming, and on every process.

    FlatTrainer ranks the rows of each process's own accumulation window, so the selection depends on the number of
    processes. Ranking costs a forward pass at ``w + e``. Dropout repeats the draws of the first pass in it, since the
    rises would otherwise compare two dropout masks; the selected rows then draw anew. In a loop of your own, unless
    ``gamma`` is 1, select the rows inside the block::

        with optimizer.perturbed():
            optimizer.zero_grad()
            with torch.no_grad():
                rise = row_losses(model, batch) - before     # before: [B], from the first pass
            loss(model, batch[rise.topk(ceil(optimizer.second_share * len(rise))).indices]).backward()

    A closure given to ``step()`` takes all rows in both passes.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of SAM's ball; the perturbation is about ``rho / sqrt(beta)`` long, and in expectation SAM's.
        beta: Probability that a weight is perturbed, in (0, 1].
        gamma: Share of the rows in the second pass, in (0, 1].
        seed: Seed of the draws of ``m``.

    Example:
        >>> round(ESAM.average_passes({"gamma": 0.5}), 2)
        1.83
    """

    rho: Radius = 0.05
    beta: Annotated[float, _BETA] = 0.5
    gamma: Annotated[float, _GAMMA] = 0.5
    seed: Seed = 0

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        gamma = cls.second_share_of(options)
        return 2.0 if gamma == 1 else 1 + _FORWARD_ALONE + gamma

    @classmethod
    def second_share_of(cls, options: Mapping[str, Any]) -> float:
        return _GAMMA.read("gamma", options.get("gamma", 0.5))

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        gradients = steepest(groups)
        if not gradients:
            return NO_PERTURBATION
        if self.beta == 1:
            return to_ball(groups, gradients)
        lengths = [joint_norm(group, 2) for group in gradients]  # of the whole gradient, before m
        return to_ball(groups, self._thinned(gradients), lengths=lengths)

    def _thinned(self, gradients: list[list[Tensor]]) -> list[list[Tensor]]:
        generators: dict[torch.device, torch.Generator] = {}

        def thin(g: Tensor) -> Tensor:
            if g.device not in generators:
                generators[g.device] = generator(g.device, self.seed, self.steps_taken)
            kept = torch.empty_like(g).bernoulli_(self.beta, generator=generators[g.device])
            return kept.mul_(g).div_(self.beta)  # 1 / beta keeps the expectation, as in dropout

        return [[thin(g) for g in group] for group in gradients]
