"""Surrogate-Gap Sharpness-Aware Minimization (Zhuang et al., ICLR 2022, arXiv:2203.08065)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius
from trainflat.optim.perturbation import Perturbation, steepest_ascent
from trainflat.optim.vectors import coefficient, gradients, take_gradients

_LEAST = Number("is the smallest radius, a number >= 0", lambda x: x >= 0)
_ALPHA = Number("is the weight of the descent on GSAM's gap, a number >= 0", lambda x: x >= 0)


class GSAM(FlatOptimizer):
    r"""SAM that also descends on the surrogate gap L(w + e) - L(w), orthogonally to the gradient of L(w + e).

    With :math:`g = \nabla L(w)` and :math:`g_p = \nabla L(w + e)` as in SAM, algorithm 1 of the paper::

        step with  g_p - alpha * (g - (g . g_p / ||g_p||^2) g_p)     products over all parameters together
        rho_t = rho_min + (rho - rho_min) * lr_t / lr_0              equation (13), with a learning rate that ends at 0

    The gap measures flatness (it is about half rho^2 times the largest Hessian eigenvalue near a minimum); orthogonal
    to ``g_p`` it can be lowered without raising the perturbed loss, to first order.

    Both gradients of a step must carry the same loss scale: with a ``GradScaler`` call ``finish_gradients()`` before
    the scaler's ``unscale_`` or ``step``. Departs from the authors' code under data parallel: there each process
    perturbs and decomposes by its own gradient and the results are summed; here the first gradient is averaged first.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Largest radius of the ball, at the full learning rate.
        rho_min: Radius when the learning rate is 0. The full learning rate is a group's ``initial_lr``, which torch's
            schedulers set; without a scheduler the radius stays ``rho``. For a constant radius set ``rho_min = rho``.
        alpha: Weight of the descent on the gap; 0, with ``rho_min = rho``, is SAM.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = GSAM([weight], rho=0.1, rho_min=0.02, lr=1.0)
        >>> schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
        >>> weight.sum().backward()
        >>> with optimizer.perturbed():
        ...     weight.sum().backward()
        >>> round(optimizer.last_norm.item(), 4)
        0.06
    """

    # The step is made of both gradients, and one of a single process's rows would let the processes drift apart.
    shares_first_gradient: ClassVar[bool] = True

    rho: Radius = 0.05
    rho_min: Annotated[float, _LEAST] = 0.0
    alpha: Annotated[float, _ALPHA] = 0.4

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        least, rho = options["rho_min"], options["rho"]
        if least > rho:
            raise InputError(f"rho_min is the smallest radius, a number from 0 to rho = {rho}, got {least!r}.")
        return {}

    def displaced(self) -> list[tuple[float, list[Tensor]]]:
        radii = [self._radius_now(group) for group in self.param_groups if group["rho"] > 0]
        return [(radius, params) for radius, (_, params) in zip(radii, super().displaced(), strict=True)]

    def perturbation(self) -> Perturbation:
        ascent = steepest_ascent(self.perturbable())
        self._first = take_gradients(self.param_groups)
        return ascent

    def combine(self) -> None:
        first, self._first = self._first, {}
        params = [p for p in first if p.grad is not None]
        if not params or self.alpha == 0:
            return
        there, here = gradients(params), [first[p] for p in params]
        # g_p - alpha (g - c g_p) = (1 + alpha c) g_p - alpha g, in place of two more copies of the gradient.
        foreach("mul_", there, 1 + self.alpha * coefficient(here, there))
        foreach("add_", there, here, alpha=-self.alpha)

    def _radius_now(self, group: dict[str, Any]) -> float:
        lr, full = float(group["lr"]), float(group.get("initial_lr", group["lr"]))
        most: float = group["rho"]
        least = min(self.rho_min, most)  # a group's own rho may be below rho_min
        return least + (most - least) * (lr / full if full > 0 else 1.0)
