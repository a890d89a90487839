"""Surrogate-Gap Sharpness-Aware Minimization (Zhuang et al., ICLR 2022, arXiv:2203.08065)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.foreach import foreach
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.checks import number, radius
from trainflat.optim.moves import Perturbation
from trainflat.optim.sam import steepest_ascent
from trainflat.optim.vectors import Gradients, coefficient, take_gradients


class GSAM(FlatOptimizer):
    r"""SAM that also climbs down the gap between the displaced loss and the loss, where that costs the former nothing.

    With :math:`g = \nabla L(w)` and :math:`g_p = \nabla L(w + e)` as in SAM, algorithm 1 of the paper::

        step with  g_p - alpha * (g - (g . g_p / ||g_p||^2) g_p)     products over all parameters together
        rho_t = rho_min + (rho - rho_min) * lr_t / lr_0              equation (13), with a learning rate that ends at 0

    Both gradients of a step must carry the same loss scale: with a ``GradScaler`` call ``finish_gradients()`` before
    the scaler's ``unscale_`` or ``step``. Under data parallel the first gradient is averaged before it displaces; in
    the authors' code each process displaces and decomposes by its own, and the results are summed.

    Args:
        params: Parameters, parameter groups (with a ``"rho"`` of their own if wanted) or ``model.named_parameters()``.
        base_optimizer: Class of the optimizer that takes the step.
        rho: Largest radius of the ball, at the full learning rate.
        rho_min: Radius when the learning rate has come down to 0. The full learning rate is a group's ``initial_lr``,
            which torch's schedulers set; without a scheduler the radius stays ``rho``. For a constant one set
            ``rho_min = rho``.
        alpha: Weight of the descent on the gap; 0, with ``rho_min = rho``, is SAM.
        exclude: Parameters to leave in place and out of the ball's norm: parts of names, or patterns.
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

    shares_first_gradient: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        rho: float = 0.05,
        *,
        rho_min: float = 0.0,
        alpha: float = 0.4,
        exclude: Sequence[str] = (),
        **base_options: Any,
    ) -> None:
        rho = radius(rho)
        words = f"the smallest radius, a number from 0 to rho = {rho}"
        self.rho_min = number("rho_min", rho_min, words, lambda x: 0 <= x <= rho)
        self.alpha = number("alpha", alpha, "the weight of the descent on GSAM's gap, a number >= 0", lambda x: x >= 0)
        self._first: Gradients = {}
        super().__init__(params, base_optimizer, rho=rho, exclude=exclude, **base_options)

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
        there, here = [p.grad for p in params if p.grad is not None], [first[p] for p in params]
        # g_p - alpha (g - c g_p), of which g_p may have a part where g has none
        foreach("mul_", there, 1 + self.alpha * coefficient(here, there))
        foreach("add_", there, here, alpha=-self.alpha)

    def _radius_now(self, group: dict[str, Any]) -> float:
        lr, full = float(group["lr"]), float(group.get("initial_lr", group["lr"]))
        most: float = group["rho"]
        least = min(self.rho_min, most)
        return least + (most - least) * (lr / full if full > 0 else 1.0)
