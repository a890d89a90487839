"""Powerpropagation (Schwarz et al., NeurIPS 2021, arXiv:2110.00296)."""

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.reparametrization.base import Reparametrization


class Powerprop(Reparametrization):
    r"""Trains θ in w = θ·|θ|^(α − 1): large weights learn faster, small ones stay small.

    The gradient of θ is that of w times :math:`\alpha |\theta|^{\alpha - 1}`. It is 0 at 0, so for α > 1 a weight that
    is exactly 0 never moves again, under any optimizer that does not move parameters without a gradient: masks hold
    by themselves. The order of |w| is that of |θ|, so magnitude pruning is the same for both. Pre-trained weights
    convert by :math:`\theta = \mathrm{sign}(w) |w|^{1 / \alpha}`, with which the authors' notebook initialises; zeros
    and signs exactly, the rest to about α units in the last place: powers are taken in float64.

    Departs from the paper in what is reparametrised: the matrices that are pruned, not the task head. Weight decay acts
    on θ. SAM perturbs θ: a displacement ε of θ is one of :math:`\alpha |w|^{1 - 1 / \alpha} \epsilon` of w, none at 0
    and wide where weights are large; between SAM, which is α = 1, and ASAM, whose displacements grow with |w| itself.

    Args:
        model: Whose matrices are reparametrised.
        alpha: At least 1, which changes nothing; 2 to 4 in the paper.

    Raises:
        InputError: for an α below 1.

    Example:
        >>> power = Powerprop(nn.Linear(2, 2), alpha=2)
        >>> power.theta_of(torch.tensor([-9.0, 0.0, 0.25]))
        tensor([-3.0000,  0.0000,  0.5000])
        >>> power.weight_of(torch.tensor([-3.0, 0.0, 0.5]))
        tensor([-9.0000,  0.0000,  0.2500])
    """

    def __init__(self, model: nn.Module, alpha: float = 2.0) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 1 <= alpha < float("inf"):
            raise InputError(f"alpha of powerprop is a number >= 1, got {alpha!r}; usual is 2 to 4.")
        super().__init__(model)
        self.alpha = float(alpha)

    def weight_of(self, theta: Tensor) -> Tensor:
        return theta * theta.abs() if self.alpha == 2 else _signed_power(theta, self.alpha)

    def theta_of(self, weight: Tensor) -> Tensor:
        return _signed_power(weight, 1 / self.alpha)

    def slope(self, theta: Tensor) -> Tensor:
        return self.alpha * theta.abs().pow(self.alpha - 1)


def _signed_power(x: Tensor, exponent: float) -> Tensor:
    if exponent == 1:
        return x.clone()
    return torch.copysign(x.double().abs().pow(exponent), x).to(x.dtype)
