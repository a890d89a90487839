"""Extrapolated gradients (Lin, Kong, Stich and Jaggi, ICML 2020, arXiv:2006.05720)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch.optim import Optimizer

from trainflat.core.settings import Number, Word
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.directions import (
    Directions,
    momentum_directions,
    previous_gradients,
    require_momentum,
    store_gradients,
)
from trainflat.optim.perturbation import NO_PERTURBATION, Move, Perturbation, joint_length
from trainflat.optim.vectors import gradients

_DIRECTION = Word(("gradient", "previous", "momentum"))


_EXTRAPOLATION = Number("is a multiple of the learning rate, a number >= 0", lambda x: x >= 0)


class ExtrapolatedGradient(FlatOptimizer):
    r"""Descends with the gradient taken at weights extrapolated downhill: SAM with the opposite sign.

    With :math:`\gamma` the learning rate of the group and d the direction chosen::

        w' = w - extrapolation * gamma * d     d = grad L(w), or the previous step's gradient, or the momentum
        w  = w - gamma * grad L(w')            or whatever step the base optimizer makes of it

    With ``gradient`` and ``extrapolation`` 1 over SGD this is the extragradient method; with ``momentum`` and
    ``extrapolation`` equal to SGD's momentum it is Nesterov's. Under data parallel each process extrapolates by its own
    gradient, as in the paper. Over Adam, too, the extrapolation is along the raw gradient, and Adam's steps are much
    longer than learning rate times gradient: there ``extrapolation`` needs other values. A gradient that overflowed
    (float16) perturbs nothing. The paper finds the benefit early in training with large batches.

    Args:
        base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        params: Parameters, parameter groups (with an extrapolation of their own under ``"rho"`` if wanted) or
            ``model.named_parameters()``.
        extrapolation: Length of the extrapolation, as a multiple of the group's learning rate: :math:`\hat\gamma /
            \gamma` in the paper. It follows the learning rate's schedule.
        direction: ``"gradient"``, the gradient of this batch, at two passes per step; or, at one pass, ``"previous"``,
            the gradient of the previous step, after clipping, or ``"momentum"``, the base optimizer's.

    Raises:
        InputError: for a negative extrapolation, an unknown direction, and ``"momentum"`` with a base that has none.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> optimizer = ExtrapolatedGradient([weight], torch.optim.SGD, lr=0.25)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        >>> optimizer.step(closure)
        >>> weight.item()  # 2 - 0.25 * 2 * (2 - 0.25 * 4)
        1.5
    """

    extrapolation: Annotated[float, _EXTRAPOLATION] = 1.0
    direction: Annotated[str, _DIRECTION] = "gradient"
    rho: float = 0.0  # no option: a group's "rho" is its extrapolation
    radius_option: ClassVar[str] = "extrapolation"

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 2.0 if options.get("direction", "gradient") == "gradient" else 1.0

    @classmethod
    def check_base(cls, base: Optimizer, options: Mapping[str, Any]) -> None:
        if options["direction"] == "momentum":
            require_momentum(cls, base, base.param_groups[0])

    @property
    def first_pass(self) -> bool:
        return self.direction == "gradient"

    def perturbation(self) -> Perturbation:
        rates = {p: float(group["lr"]) for group in self.param_groups for p in group["params"]}
        moves = [Move(d.params, d.tensors, -d.rho * rates[d.params[0]]) for d in self._directions() if d.params]
        norm = joint_length(moves)
        # Only a scaled loss overflows as a matter of course; otherwise a GPU need not wait for the norm.
        return NO_PERTURBATION if self.loss_scale != 1 and not norm.isfinite() else Perturbation(moves, norm)

    def remember(self) -> None:
        if self.direction == "previous":
            store_gradients(self)

    def _directions(self) -> list[Directions]:
        if self.direction == "momentum":
            return momentum_directions(self)
        if self.direction == "previous":
            return previous_gradients(self)
        # The length is a multiple of the gradient, so a loss scale has to be divided out, unlike in SAM.
        return [Directions(rho / self.loss_scale, params, gradients(params)) for rho, params in self.perturbable()]

    def _prepare(self, group: dict[str, Any]) -> None:
        super()._prepare(group)
        if self.direction == "momentum":
            require_momentum(type(self), self.base, group)
