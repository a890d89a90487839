"""Solves the output matrix anew (K-prune, ICLR 2024, arXiv:2308.03449; STAT, arXiv:2406.00061)."""

import torch
from torch import Tensor

from trainflat.core.settings import checked
from trainflat.pruning.structured.moments import Ridge
from trainflat.pruning.structured.repairs.base import Damage, Repair


class LeastSquares(Repair):
    r"""Replaces the kept columns and the bias by those that come nearest to the dense model's hidden states.

    .. math:: \min_{W, b} E_t \|W x_t + b - y_t\|^2 + \lambda \|W - W_0\|^2

    with the target y of :class:`~trainflat.pruning.structured.layerwise.Seen`, in which the errors of earlier
    sub-layers are fed in, and the dense matrix :math:`W_0`. Normal equations in float64.

    Args:
        ridge: :math:`\lambda`, as a multiple of the mean square of an input. K-prune and STAT have none; without it,
            a few hundred rows of text are fitted too closely.
    """

    @checked
    def __init__(self, ridge: Ridge = 1e-3) -> None:
        self.ridge = ridge

    def repaired(self, damage: Damage) -> tuple[Tensor, Tensor | None]:
        given = damage.moments
        hessian, cross = (given if damage.bias is None else given.centred()).ridged(damage.weight, self.ridge)
        kept = damage.kept.nonzero().flatten()
        weight = torch.zeros_like(damage.weight)
        if len(kept):
            root = torch.linalg.cholesky(hessian[kept][:, kept])
            weight[:, kept] = torch.cholesky_solve(cross[kept], root).T
        return weight, None if damage.bias is None else given.mean_target - weight @ given.mean_input
