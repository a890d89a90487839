"""CrAM, a compression-aware minimizer (Peste, Vladu, Kurtic, Lampert and Alistarh, ICLR 2023, arXiv:2207.14200)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.rng import generator
from trainflat.core.settings import Check, Number, Truth
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius, Seed
from trainflat.optim.perturbation import NO_PERTURBATION, Groups, Move, Perturbation, joint_length
from trainflat.optim.vectors import gradients, joint_norm, largest, take_gradients


class _Sparsities(Check):
    """Shares of weights to drop, as a tuple."""

    each = Number("is a list of shares of weights to drop, each in [0, 1)", lambda x: 0 <= x < 1)

    def read(self, name: str, value: Any) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise InputError(f"{name} is a list of shares of weights to drop, got {value!r}.")
        return tuple(self.each.read(name, share) for share in value)


class CrAM(FlatOptimizer):
    r"""Descends with the gradient taken after a step uphill and magnitude pruning of the weights.

    With C the magnitude pruning of the weights and M its mask::

        g = M * grad L(C(w + rho * grad L(w)))                  CrAM
        g = M * grad L(C(w + rho * grad L(w))) + grad L(w)      CrAM+, which keeps the dense model good

    :math:`\rho` multiplies the gradient itself, which is not normalised. C prunes parameters of at least two
    dimensions that are not excluded, in one global ranking, to a sparsity drawn at every step from ``seed`` and the
    number of the step, so that all processes draw the same. Weights that masks keep at 0 count as pruned. With data
    parallel the first gradient is averaged, so that all processes prune the same weights. A gradient that overflowed
    (float16) neither perturbs nor prunes.

    Departs from the paper, which re-tunes batch normalisation after pruning: encoders have none. The authors' code
    ranks each parameter group by itself.

    Args:
        base_optimizer, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        params: Parameters, parameter groups (with a ``"rho"`` of their own; 0 also exempts from C) or
            ``model.named_parameters()``.
        rho: Factor of the gradient in the step uphill; at 0 the method is its base optimizer, at two passes.
        sparsities: Shares of the weights that C prunes, each in [0, 1); one of them is drawn per step.
        plus: Whether to add the dense gradient (CrAM+).
        seed: Seed of the draws.
        exclude: Parameters that are neither perturbed nor pruned, usually embeddings and the task head.

    Raises:
        InputError: for sparsities outside [0, 1) or none.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[4.0, 1.0]]))
        >>> optimizer = CrAM([weight], torch.optim.SGD, rho=0.25, sparsities=[0.5], lr=0.1)
        >>> weight.square().sum().backward()  # the gradient is (8, 2), the step uphill leads to (6, 1.5)
        >>> with optimizer.perturbed():
        ...     weight.tolist()
        [[6.0, 0.0]]
    """

    shares_first_gradient: ClassVar[bool] = True
    rho_only_displaces: ClassVar[bool] = False

    rho: Radius = 0.05
    sparsities: Annotated[Sequence[float], _Sparsities()] = (0.5, 0.7, 0.9)
    plus: Annotated[bool, Truth()] = False
    seed: Seed = 0
    _kept: Sequence[tuple[Tensor, Tensor]] = ()  # parameters pruned in the current step, and their masks

    def sparsity(self) -> float:
        """Draws the share of weights that C prunes in the coming step."""
        draws = generator("cpu", self.seed, self.steps_taken)
        return self.sparsities[int(torch.randint(len(self.sparsities), (), generator=draws))]

    def perturbation(self) -> Perturbation:
        groups = self.perturbable()
        self._kept, overflowed = (), self._overflowed(groups)
        # rho is in units of weight per gradient, so a scaled gradient has to be unscaled, unlike in SAM.
        points = [] if overflowed else [_uphill(params, rho / self.loss_scale) for rho, params in groups]
        self._first = take_gradients(self.param_groups) if self.plus else {}
        if not points:
            return NO_PERTURBATION
        self._compress([pair for (_, ps), at in zip(groups, points, strict=True) for pair in zip(ps, at, strict=True)])
        # To the base class a perturbation is a difference; the pruned entries of C(...) become exactly 0 all the same,
        # because p + (0 - p) is exact.
        moves = [Move(ps, foreach("sub", at, ps), 1.0) for (_, ps), at in zip(groups, points, strict=True)]
        return Perturbation(moves, joint_length(moves))

    def combine(self) -> None:
        # The chain rule through C(w) = M * w, with M taken as constant.
        for p, kept in self._kept:
            if p.grad is not None:
                p.grad.mul_(kept)
        for p, first in self._first.items():
            p.grad = first if p.grad is None else p.grad.add_(first)
        self._kept, self._first = (), {}

    def _compress(self, points: list[tuple[Tensor, Tensor]]) -> None:
        """Zeros the smallest entries of all matrices together, in place, and keeps the masks."""
        matrices = [(p, point) for p, point in points if p.dim() >= 2]
        if not matrices:
            return
        entries = sum(p.numel() for p, _ in matrices)
        stay = largest([point.abs() for _, point in matrices], entries - round(self.sparsity() * entries))
        for (_, point), kept in zip(matrices, stay, strict=True):
            point.mul_(kept)
        self._kept = [(p, kept) for (p, _), kept in zip(matrices, stay, strict=True)]

    def _overflowed(self, groups: Groups) -> bool:
        # Only a scaled loss overflows as a matter of course; otherwise a GPU need not wait for the norm.
        grads = [g for _, params in groups for g in gradients(params)]
        return self.loss_scale != 1 and bool(grads) and not bool(joint_norm(grads, 2.0).isfinite())


def _uphill(params: list[Tensor], rho: float) -> list[Tensor]:
    return foreach("add", params, gradients(params), alpha=rho)
