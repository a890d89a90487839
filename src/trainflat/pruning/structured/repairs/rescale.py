"""Rescales the units that are kept (mask tuning of Kwon et al., NeurIPS 2022, arXiv:2204.09656)."""

import torch
from torch import Tensor

from trainflat.pruning.structured.repairs.base import Damage, Repair

_LARGEST = 10.0  # beyond this, the solution fits noise: the authors stop there


class Rescale(Repair):
    r"""Finds a factor for each kept unit by damped least squares, and folds it into the unit's columns.

    .. math:: \min_m \sum_t \Big\| \sum_i m_i W_i x_{ti} + b - y_t \Big\|^2 + \|m - 1\|^2

    over positions t, with the target y of :class:`~trainflat.pruning.structured.layerwise.Seen`. Once a factor is
    beyond 10, this and all later sub-layers stay as they are. Departs from the authors' code, whose targets come from a
    model that is less pruned, in two steps, and whose last layer looks at the first token only: here the dense model is
    the target everywhere, as for the other repairs.
    """

    def __init__(self) -> None:
        self.stopped = False

    def repaired(self, damage: Damage) -> tuple[Tensor, Tensor | None]:
        factors = torch.ones(len(damage.kept) // damage.width, dtype=torch.float64)
        units = damage.kept.view(-1, damage.width).any(1).nonzero().flatten()
        if not self.stopped and len(units):
            found = _factors(damage)[units][:, units], _targets(damage)[units]
            values = torch.linalg.solve(found[0] + torch.eye(len(units), dtype=torch.float64), found[1] + 1)
            self.stopped = bool((values.abs() > _LARGEST).any())
            if not self.stopped:
                factors[units] = values
        return damage.masked() * factors.repeat_interleave(damage.width), damage.bias


def _factors(damage: Damage) -> Tensor:
    """Returns the inner products of all units' parts of the output, summed over positions: [units, units]."""
    products = damage.moments.count * damage.moments.inputs * (damage.weight.T @ damage.weight)
    return products.view(-1, damage.width, len(products) // damage.width, damage.width).sum((1, 3))


def _targets(damage: Damage) -> Tensor:
    """Returns the inner products of the units' parts with the target less the bias, summed over positions: [units]."""
    m = damage.moments
    cross = m.cross if damage.bias is None else m.cross - torch.outer(m.mean_input, damage.bias)
    return m.count * (damage.weight.T * cross).sum(1).view(-1, damage.width).sum(1)
