"""Powerpropagation (Schwarz et al., NeurIPS 2021, arXiv:2110.00296)."""

from typing import Annotated

import torch
from torch import Tensor

from trainflat.core.settings import Number
from trainflat.reparametrization.base import Reparametrization

_ALPHA = Number("of powerprop is a number >= 1", lambda x: x >= 1, advice="; usual is 2 to 4.")


class Powerprop(Reparametrization):
    r"""Trains θ in w = θ·|θ|^(α − 1): large weights learn faster, small ones stay small.

    By the chain rule the gradient of θ is the gradient of w times :math:`\alpha |\theta|^{\alpha - 1}`, so 0 at 0: for
    α > 1 a weight that is exactly 0 never moves again, under any optimizer that does not move parameters without a
    gradient, and masks need no enforcing. |θ| and |w| rank weights alike, so magnitude pruning is the same for both.
    Pre-trained weights convert by :math:`\theta = \mathrm{sign}(w) |w|^{1 / \alpha}`, as in the authors' notebook;
    zeros and signs exactly, the rest to about α units in the last place.

    Departs from the paper: only the matrices that are pruned are reparametrised, not the task head. Weight decay acts
    on θ. SAM perturbs θ: a perturbation ε of θ is :math:`\alpha |w|^{1 - 1 / \alpha} \epsilon` in w, 0 at 0 and large
    where weights are large; between SAM (α = 1) and ASAM, whose perturbations grow with |w| itself.

    Args:
        model: The model whose matrices are reparametrised.
        alpha: Exponent, at least 1, which changes nothing; 2 to 4 in the paper.

    Raises:
        InputError: for an α below 1.

    Example:
        >>> from torch import nn
        >>> power = Powerprop(nn.Linear(2, 2), alpha=2)
        >>> power.theta_of(torch.tensor([-9.0, 0.0, 0.25]))
        tensor([-3.0000,  0.0000,  0.5000])
        >>> power.weight_of(torch.tensor([-3.0, 0.0, 0.5]))
        tensor([-9.0000,  0.0000,  0.2500])
    """

    alpha: Annotated[float, _ALPHA] = 2.0

    def weight_of(self, theta: Tensor) -> Tensor:
        # The paper's default without powers: exact to one rounding, and quick in every step.
        return theta * theta.abs() if self.alpha == 2 else _signed_power(theta, self.alpha)

    def theta_of(self, weight: Tensor) -> Tensor:
        return _signed_power(weight, 1 / self.alpha)

    def slope(self, theta: Tensor) -> Tensor:
        return self.alpha * theta.abs().pow(self.alpha - 1)


def _signed_power(x: Tensor, exponent: float) -> Tensor:
    if exponent == 1:
        return x.clone()
    # In float64, as float32 powers are off by several units in the last place. copysign, because sign(x) * 0 would lose
    # the sign of -0.0.
    return torch.copysign(x.double().abs().pow(exponent), x).to(x.dtype)
