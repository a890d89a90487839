"""Surrogate-Gap Sharpness-Aware Minimization (Zhuang et al., ICLR 2022, arXiv:2203.08065)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.foreach import foreach
from trainflat.core.settings import Number, checked
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius
from trainflat.optim.perturbation import Perturbation, steepest_ascent
from trainflat.optim.vectors import Gradients, coefficient, gradients, take_gradients

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
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Largest radius of the ball, at the full learning rate.
        rho_min: Radius when the learning rate is 0. The full learning rate is a group's ``initial_lr``, which torch's
            schedulers set; without a scheduler the radius stays ``rho``. For a constant radius set ``rho_min = rho``.
        alpha: Weight of the descent on the gap; 0, with ``rho_min = rho``, is SAM.
        exclude: Parameters that are not perturbed and not in the ball's norm: parts of names, or patterns.
        **base_options: Passed on to ``base_optimizer``: ``lr``, ``weight_decay``, ...

    Example:
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

    @checked
    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: Radius = 0.05,
        *,
        rho_min: float = 0.0,
        alpha: Annotated[float, _ALPHA] = 0.4,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        self.rho_min, self.alpha = _smallest(rho_min, rho), alpha
        self._first: Gradients = {}
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        _smallest(options["rho_min"], options["rho"])
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


def _smallest(rho_min: float, rho: float) -> float:
    words = f"is the smallest radius, a number from 0 to rho = {rho}"
    return Number(words, lambda x: 0 <= x <= rho).read("rho_min", rho_min)
