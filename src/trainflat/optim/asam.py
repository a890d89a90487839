"""Adaptive Sharpness-Aware Minimization (Kwon et al., ICML 2021, arXiv:2102.11600)."""

from typing import Annotated

from torch import Tensor

from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius
from trainflat.optim.perturbation import NO_PERTURBATION, Perturbation, steepest, to_ball
from trainflat.optim.vectors import joint_norm

_ETA = Number("is a number >= 0 added to ASAM's absolute weights", lambda x: x >= 0)


class ASAM(FlatOptimizer):
    r"""SAM in a ball that is wide where weights are large, so that rescaling layers does not change sharpness.

    A network of ReLUs computes the same with one layer doubled and the next halved, yet its loss is sharper in the
    halved weights; measured in ``e / T`` both networks are equally sharp.

    With :math:`g = \nabla L(w)`, equation (9) of the paper and the authors' normalisation operator::

        e(w) = rho * T^2 g / ||T g||_2     norms over all parameters together
        T    = |w| + eta                   for weights: a matrix, or a name that ends in "weight" (LayerNorm's too)
             = 1                           for biases

    The direction does not depend on the gradient's scale, so a first pass with a scaled loss needs no unscaling.

    Departs from the authors' code, which decides by names alone: every name with "weight" in it, so not a matrix of
    another name. Without names a parameter of two or more dimensions is a weight and all others are biases, LayerNorm's
    weights too: pass ``model.named_parameters()``.

    Args:
        params, base_optimizer, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        rho: Radius of the adaptive ball, the largest ``||e / T||_2``; about ten times SAM's.
        eta: Added to the absolute weights; :math:`\eta` in the paper. For large eta with rho * eta fixed, weights are
            perturbed as by SAM.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 0.0]]))
        >>> optimizer = ASAM([weight], rho=0.5, eta=0.01, lr=1e-3)
        >>> weight.sum().backward()
        >>> with optimizer.perturbed():  # far along the large weight, hardly along the small one
        ...     (weight.detach() - torch.tensor([[3.0, 0.0]])).round(decimals=5)
        tensor([[1.5050e+00, 2.0000e-05]])
    """

    rho: Radius = 0.5
    eta: Annotated[float, _ETA] = 0.01

    def perturbation(self) -> Perturbation:
        groups, named = self.perturbable(), self._named_weights()
        gradients = steepest(groups)
        if not gradients:
            return NO_PERTURBATION
        directions: list[list[Tensor]] = []
        lengths: list[Tensor] = []
        for (_, params), grads in zip(groups, gradients, strict=True):
            pairs = [self._adapted(p, g, p.dim() > 1 or p in named) for p, g in zip(params, grads, strict=True)]
            directions.append([direction for direction, _ in pairs])
            lengths.append(joint_norm([length for _, length in pairs], 2))
        return to_ball(groups, directions, lengths=lengths)

    def _adapted(self, p: Tensor, g: Tensor, is_weight: bool) -> tuple[Tensor, Tensor]:
        """Computes T^2 g and the norm of T g, one parameter at a time, so that only one T g is held."""
        if not is_weight:
            return g, joint_norm([g], 2)
        t = p.detach().to(g.dtype).abs().add_(self.eta)
        tg = t * g
        # Written over T: with T, T g and T^2 g of the whole model a step would hold three more copies of it.
        return t.mul_(tg), joint_norm([tg], 2)

    def _named_weights(self) -> set[Tensor]:
        # LayerNorm's weight is a vector, and only its name says that it scales rather than shifts.
        pairs = (zip(g.get("param_names", ()), g["params"], strict=False) for g in self.param_groups)
        return {p for group in pairs for name, p in group if name.endswith("weight")}
