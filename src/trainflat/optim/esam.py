"""Efficient Sharpness-Aware Minimization (Du et al., ICLR 2022, arXiv:2110.03141)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.rng import generator
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.checks import number, whole
from trainflat.optim.moves import NOWHERE, Perturbation
from trainflat.optim.sam import joint_norm, steepest, to_ball

# Finding the rows takes a forward pass; with its backward pass it would be one, and that takes twice the time.
_FORWARD_ALONE = 1 / 3


class ESAM(FlatOptimizer):
    r"""SAM that displaces some weights only, and takes its second gradient over the rows that feel it most.

    With :math:`g = \nabla L(w)`, sections 3.1 (stochastic weight perturbation) and 3.2 (sharpness-sensitive data
    selection) of the paper::

        e(w) = rho * (m / beta) * g / ||g||_2     m_i = 1 with probability beta, else 0
        w    = w - lr * grad L_B+(w + e(w))       B+: the share gamma of the rows with the largest l(w + e) - l(w)

    ``m`` is drawn for each weight, as in the paper; the authors' code draws whole tensors, leaves the others out of the
    norm too, and selects a row less than gamma's share, rounded down; here the share is rounded up. Draws depend on
    ``seed`` and the number of the step alone: the same after resuming, and on every process.

    FlatTrainer selects the rows of each process's own window, so that several processes select others than one would,
    at the price of a forward pass at ``w + e``; dropout repeats there what it drew in the first pass, and draws anew
    for the selected rows. In a loop of your own, unless ``gamma`` is 1, select them inside the block::

        with optimizer.perturbed():
            optimizer.zero_grad()
            with torch.no_grad():
                rise = row_losses(model, batch) - before     # before: [B], from the first pass
            loss(model, batch[rise.topk(ceil(optimizer.second_share * len(rise))).indices]).backward()

    A closure given to ``step()`` takes all rows in both passes.

    Args:
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Radius of SAM's ball; the displacement is about ``rho / sqrt(beta)`` long, and SAM's on average.
        beta: Probability that a weight is displaced, in (0, 1].
        gamma: Share of the rows in the second pass, in (0, 1].
        seed: Of the draws.
        exclude: Parameters to leave in place and out of the norm: parts of names, or patterns such as ``"*.bias"``.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Example:
        >>> round(ESAM.average_passes({"gamma": 0.5}), 2)
        1.83
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        beta: float = 0.5,
        gamma: float = 0.5,
        seed: int = 0,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        self.beta = number("beta", beta, "the share of weights that ESAM displaces, in (0, 1]", lambda x: 0 < x <= 1)
        self.second_share = _gamma(gamma)
        self.seed = whole("seed", seed, least=0)
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        gamma = _gamma(options.get("gamma", 0.5))
        return 2.0 if gamma == 1 else 1 + _FORWARD_ALONE + gamma

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        gradients = steepest([[p.grad for p in params if p.grad is not None] for _, params in groups], 2)
        if not gradients:
            return NOWHERE
        if self.beta == 1:
            return to_ball(groups, gradients)
        lengths = [joint_norm(group, 2) for group in gradients]
        return to_ball(groups, self._thinned(gradients), lengths=lengths)

    def _thinned(self, gradients: list[list[Tensor]]) -> list[list[Tensor]]:
        generators: dict[torch.device, torch.Generator] = {}

        def thin(g: Tensor) -> Tensor:
            if g.device not in generators:
                generators[g.device] = generator(g.device, self.seed, self.steps_taken)
            kept = torch.empty_like(g).bernoulli_(self.beta, generator=generators[g.device])
            return kept.mul_(g).div_(self.beta)

        return [[thin(g) for g in group] for group in gradients]


def _gamma(value: Any) -> float:
    return number("gamma", value, "the share of rows in ESAM's second pass, in (0, 1]", lambda x: 0 < x <= 1)
