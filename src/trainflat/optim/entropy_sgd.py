"""Entropy-SGD (Chaudhari et al., ICLR 2017, arXiv:1611.01838)."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.formatting import plural
from trainflat.core.rng import generator
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Seed, Whole
from trainflat.optim.perturbation import NO_PERTURBATION, Move, Perturbation, joint_length

_ABOVE_ZERO = Number("is a number > 0", lambda x: x > 0)
_NOISE = Number("is a number >= 0", lambda x: x >= 0)
_ALPHA = Number("is the weight of the newest point, in (0, 1]", lambda x: 0 < x <= 1)


class EntropySGD(FlatOptimizer):
    r"""Steps towards the mean of a noisy walk around the weights, so towards wide valleys (local entropy).

    The walk (Langevin dynamics) starts at the weights w and is pulled back to them. Every step is one step of the walk,
    on a batch of its own; every L-th one is followed by a step of the base optimizer on w, after which the walk starts
    anew (Algorithm 1 of the paper)::

        w' = w' - eta' (grad L(w') - gamma (w - w')) + sqrt(eta') epsilon N(0, 1)
        mu = (1 - alpha) mu + alpha w'
        every L-th step:  w = w - eta gamma (w - mu), or whatever step the base optimizer makes of gamma (w - mu)
                          w' = mu = w

    One pass per step, so L passes per step of the base optimizer. A learning rate schedule counts steps of the walk and
    applies to :math:`\eta` only. Between passes the model holds w, so evaluation and checkpoints see w. Clipping is of
    the walk's gradients. Noise is drawn from ``seed``, the number of the step and the position of the parameter, so all
    processes draw the same; pruned weights get none. Memory: two more copies of the weights.

    Departs from Algorithm 1: :math:`\gamma` stays constant (no scoping), and any base optimizer may take the outer
    step. Adam's step does not depend on the gradient's scale, so over Adam :math:`\gamma` acts on the walk alone.

    The authors' code departs from Algorithm 1, too: its noise is ``sqrt(2 eta') epsilon``, its mean keeps 0.75, so that
    the newest point weighs 0.25, and its outer step is ``eta (w - mu)``, without :math:`\gamma`. Over SGD this is
    ``noise`` = sqrt(2) epsilon, ``alpha`` = 0.25 and ``lr`` = eta / gamma here. There the walk has momentum and weight
    decay, too; here the outer step alone.

    Args:
        params, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        base_optimizer: Class of the optimizer that takes the outer step.
        inner_steps: Steps of the walk per outer step; L in the paper, 20 there for images and 5 for text.
        inner_lr: Learning rate of the walk; :math:`\eta'`.
        gamma: Strength of the pull back to w; :math:`\gamma`.
        noise: Standard deviation of the noise, before the factor sqrt(eta'); :math:`\epsilon`.
        alpha: Weight of the newest point in the walk's mean; :math:`\alpha` of Algorithm 1.
        seed: Seed of the noise.

    Raises:
        InputError: for an option outside its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> options = {"inner_steps": 2, "inner_lr": 0.25, "gamma": 1.0, "noise": 0.0, "alpha": 1.0}
        >>> optimizer = EntropySGD([weight], torch.optim.SGD, lr=1.0, **options)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        >>> for _ in range(2):  # the walk goes from 2 to 1 and 0.75; only then w follows
        ...     optimizer.step(closure)
        ...     weight.item()
        2.0
        0.75
    """

    rho_only_displaces: ClassVar[bool] = False

    inner_steps: Whole = 5
    inner_lr: Annotated[float, _ABOVE_ZERO] = 0.1
    gamma: Annotated[float, _ABOVE_ZERO] = 0.03
    noise: Annotated[float, _NOISE] = 1e-4
    alpha: Annotated[float, _ALPHA] = 0.75
    seed: Seed = 0
    rho: float = 0.0  # no option: nothing is perturbed
    exclude: Sequence[str] = ()

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @classmethod
    def check_length(cls, options: Mapping[str, Any], total: int) -> None:
        if total < options["inner_steps"]:
            raise InputError(
                f"the weights would not change in {plural(total, 'step')}: they do after every inner_steps = "
                f"{options['inner_steps']}. Train longer, or lower inner_steps."
            )

    @property
    def first_pass(self) -> bool:
        return False

    def perturbation(self) -> Perturbation:
        params = self._walking()
        moves = [Move(params, self.remembered("walk", params), 1.0)]
        return Perturbation(moves, joint_length(moves)) if params else NO_PERTURBATION

    @torch.no_grad()
    def base_step(self) -> None:
        params = self._walking()
        # Both are stored relative to w, so that a new walk starts at 0 and float32 resolves its small steps.
        walk, mean = self.remembered("walk", params), self.remembered("mean", params)
        for place, (p, at) in enumerate(zip(params, walk, strict=True)):
            if p.grad is not None:
                at.mul_(1 - self.inner_lr * self.gamma).sub_(p.grad, alpha=self.inner_lr)
                self._add_noise(p, at, place)
        foreach("lerp_", mean, walk, self.alpha)
        if (self.steps_taken + 1) % self.inner_steps == 0:
            self._follow(params, mean)
            foreach("zero_", walk + mean)

    def _follow(self, params: list[Tensor], mean: list[Tensor]) -> None:
        for p, towards in zip(params, mean, strict=True):
            # The last batch of the walk may not have used a parameter that an earlier one did.
            if p.grad is not None or towards.any():
                p.grad = (towards * -self.gamma).to(p.dtype)
        super().base_step()

    def _add_noise(self, p: Tensor, at: Tensor, place: int) -> None:
        if not self.noise:
            return
        # A generator per parameter and step, not one that runs on: nothing to save, and no dependence on their order.
        draws = generator(p.device, self.seed, self.steps_taken, place)
        shock = torch.randn(p.shape, generator=draws, device=p.device, dtype=at.dtype)
        mask = self.held.factor(p) if self.held is not None else None
        at.add_(shock if mask is None else shock * mask, alpha=math.sqrt(self.inner_lr) * self.noise)

    def _walking(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad and p.numel()]
