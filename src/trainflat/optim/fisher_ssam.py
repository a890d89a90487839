"""Sparse SAM with a Fisher mask (Mi et al., NeurIPS 2022, arXiv:2210.05177)."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius, Whole
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, steepest, to_ball
from trainflat.optim.vectors import joint_norm, largest

_SPARSITY = Number("is the share of weights that SSAM does not perturb, in [0, 1)", lambda x: 0 <= x < 1)


class FisherSSAM(FlatOptimizer):
    r"""SAM that perturbs only the weights with the most Fisher information.

    With :math:`g = \nabla L(w)`, equation (5) and algorithm 2 of the paper::

        e(w) = rho * m * g / ||g||_2     m = 1 for the share 1 - sparsity of all weights with the largest Fisher
                                         information, else 0; the norm is that of the whole gradient

    Departs from the paper: the empirical Fisher information is the squared gradient of the current mini-batch at each
    ``refresh``-th step, which costs no pass, not the mean of squared per-row gradients, computed once per epoch. The
    second pass costs as much as SAM's: the paper's saving needs sparse kernels. Pruned weights are not counted and
    never chosen.

    Args:
        params, base_optimizer, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of SAM's ball; entries outside the mask are then set to 0, so the perturbation is shorter.
        sparsity: Share of the weights that are not perturbed, in [0, 1); 0 is SAM.
        refresh: Steps from one mask to the next.
        exclude: Parameters that are not perturbed, not in the norm and not ranked: parts of names, or patterns.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = FisherSSAM([weight], rho=0.5, sparsity=0.5)
        >>> (weight.square().sum() / 2).backward()
        >>> with optimizer.perturbed():
        ...     weight.detach().clone()
        tensor([3.0000, 4.4000])
    """

    # The first gradient makes the mask, and a checkpoint saves one mask: all processes must have made the same.
    shares_first_gradient: ClassVar[bool] = True

    rho: Radius = 0.05
    sparsity: Annotated[float, _SPARSITY] = 0.5
    refresh: Whole = 100

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        gradients = steepest(groups)
        if not gradients:
            return NO_PERTURBATION
        if self.sparsity == 0:
            return to_ball(groups, gradients)
        params = [p for _, group in groups for p in group]
        if self.steps_taken % self.refresh == 0:
            self._choose(params, [g for group in gradients for g in group])
        lengths = [joint_norm(group, 2) for group in gradients]  # of the whole gradient, before m
        masked = [
            [g * self._mask(p) for p, g in zip(group, grads, strict=True)]
            for (_, group), grads in zip(groups, gradients, strict=True)
        ]
        return to_ball(groups, masked, lengths=lengths)

    def _choose(self, params: list[Tensor], gradients: list[Tensor]) -> None:
        # |g| ranks as the squared gradient does, without underflow; a loss scale does not change ranks either.
        scores = [g.abs() for g in gradients]
        entries = 0
        for p, score in zip(params, scores, strict=True):
            factor = None if self.held is None else self.held.factor(p)
            entries += score.numel() if factor is None else int(factor.sum(dtype=torch.float64))
            if factor is not None:
                score.masked_fill_(factor == 0, -1)  # below every |g|, so a pruned weight is chosen last
        count = round((1 - self.sparsity) * entries)
        for p, mask in zip(params, largest([s.to(scores[0].device) for s in scores], count), strict=True):
            self.memory.setdefault(p, {})["mask"] = mask.to(p.device)

    def _mask(self, p: Tensor) -> Tensor:
        # A parameter without a gradient when the mask was made has no rank, so it waits for the next mask.
        mask = self.memory.get(p, {}).get("mask")
        return torch.zeros_like(p, dtype=torch.bool) if mask is None else mask
