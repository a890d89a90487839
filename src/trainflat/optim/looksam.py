"""LookSAM (Liu et al., CVPR 2022, arXiv:2203.02714): SAM at every k-th step, its flat direction in between."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch

from trainflat.core.foreach import foreach
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import WHOLE, Radius, Whole
from trainflat.optim.perturbation import Move, Perturbation, apply_move, steepest_ascent
from trainflat.optim.vectors import cheaply_read, coefficient, gradients, joint_norm, take_gradients

_ALPHA = Number("is the weight of LookSAM's reused direction, a number >= 0", lambda x: x >= 0)


class LookSAM(FlatOptimizer):
    r"""Takes SAM's gradient at every k-th step and reuses its flat direction in the steps between, at one pass each.

    With :math:`g = \nabla L(w)`, :math:`g_s = \nabla L(w + e)` as in SAM, algorithm 1 of the paper::

        every k-th step, the first included:   step with g_s;  store g_v = g_s - (g_s . g / ||g||^2) g
        between:                               step with g + alpha * (||g|| / ||g_v||) * g_v

    Products and norms run over all parameters together, as in the paper; some ports take them per tensor. Only the
    direction of ``g_v`` is stored, which no loss scale and no clipping changes. Where ``g_s`` and ``g`` differ by
    rounding alone, as with a radius of 0, ``g_v`` is 0.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of SAM's ball, as an L2 norm over all parameters.
        k: Every ``k``-th step takes SAM's two passes; 1 is SAM.
        alpha: Weight of the reused direction; :math:`\alpha` in the paper.

    Example:
        >>> LookSAM.average_passes({"k": 5})
        1.2
    """

    # g_v is made of both gradients and saved in checkpoints, so it must be the same on all processes.
    shares_first_gradient: ClassVar[bool] = True

    rho: Radius = 0.05
    k: Whole = 5
    alpha: Annotated[float, _ALPHA] = 0.7

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1 + 1 / WHOLE.read("k", options.get("k", 5))

    @property
    def second_pass(self) -> bool:
        return self.steps_taken % self.k == 0

    def perturbation(self) -> Perturbation:
        ascent = steepest_ascent(self.perturbable())
        self._first = take_gradients(self.param_groups)
        return ascent

    def combine(self) -> None:
        if self.second_pass:
            return
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        known = [p for p in params if "direction" in self.memory.get(p, {})]
        if not known:
            return
        length = joint_norm(gradients(params), 2)  # ||g|| of this step, so that alpha is a share of it
        directions = [self.memory[p]["direction"] for p in known]
        apply_move(Move(gradients(known), directions, cheaply_read(self.alpha * length)))
        if self.held is not None:  # the stored direction may be older than the masks
            self.held.mask_gradients()

    def remember(self) -> None:
        first, self._first = self._first, {}
        params = [p for p in first if p.grad is not None]
        if self.k == 1 or not params:
            return
        taken, plain = gradients(params), [first[p] for p in params]
        kept = self.remembered("direction", params)
        foreach("copy_", kept, taken)
        # g may still be scaled and g_s unscaled by now. A projection onto g does not depend on the length of g, and of
        # g_v only the direction is stored.
        apply_move(Move(kept, plain, -coefficient(kept, plain)))
        # Subtracting nearly all of g_s leaves rounding of this size; normalised, it would be noise as long as g.
        rounding = 8 * max(torch.finfo(g.dtype).eps for g in plain) * joint_norm(taken, 2)
        length = joint_norm(kept, 2)
        scale = torch.where(length > rounding, 1 / length, torch.zeros_like(length))
        foreach("mul_", kept, cheaply_read(scale))
