"""L0 regularisation with hard-concrete gates (Louizos, Welling and Kingma, ICLR 2018, arXiv:1712.01312)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.schedules import Schedule
from trainflat.pruning.gates.penalized import PenalizedGate
from trainflat.pruning.gates.scored import Perturb
from trainflat.pruning.gates.units import Unit

# gamma, zeta and beta: how far the concrete distribution is stretched beyond [0, 1], and its temperature
_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3


class HardConcrete(PenalizedGate):
    r"""Draws a gate in [0, 1] for each weight at each step, and learns the odds that it is 0.

    With S the paper's :math:`\log\alpha` and u uniform in (0, 1), equations (10) and (11)::

        s = sigmoid((log u - log(1 - u) + S) / beta)        beta = 2/3
        z = clip(s * (zeta - gamma) + gamma, 0, 1)          gamma = -0.1, zeta = 1.1

    The penalty is the mean of ``P(z > 0) = sigmoid(S - beta * log(-gamma / zeta))``. What is evaluated, and what
    training ends with, is ``W * clip(sigmoid(S) * (zeta - gamma) + gamma, 0, 1)``, equation (13). Draws are the
    same in all passes of a step and on all processes, and at least 1e-6 away from 0 and 1; 1e-4 in the code of Sanh et
    al. (2020).

    Args:
        model: Whose weights are gated.
        penalty: lambda, at least 0; None is 125 where there is no target, as the baseline of Sanh et al. (2020), whose
            other values are the defaults too.
        target_sparsity: Share of the scores to drop in the end; None leaves lambda as it is.
        schedule: When lambda rises; None is constant, as published. With a target, when the sparsity does; None is
            cubic.
        unit: See :class:`~trainflat.pruning.gates.scored.ScoredGate`; also for the other arguments.
    """

    published: ClassVar[float] = 125.0
    first_score: ClassVar[float] = 2.197
    shift: ClassVar[float] = _TEMPERATURE * math.log(-_LOW / _HIGH)

    def __init__(
        self,
        model: nn.Module,
        penalty: float | None = None,
        target_sparsity: float | None = None,
        *,
        schedule: str | Mapping[str, Any] | Schedule | None = None,
        unit: Unit = "weight",
        score_lr: float = 0.1,
        perturb: Perturb | None = None,
    ) -> None:
        schedule = schedule or ("constant" if target_sparsity is None else "cubic")
        super().__init__(
            model, penalty, target_sparsity, schedule=schedule, unit=unit, score_lr=score_lr, perturb=perturb
        )

    @property
    def cut(self) -> float:
        return math.log(-_LOW / _HIGH)  # where the deterministic gate becomes 0

    def gate(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        return _stretched(self._concrete(name, score)).clamp_(0, 1)

    def slope(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        s = self._concrete(name, score)
        stretched = _stretched(s)
        inside = (stretched > 0) & (stretched < 1)
        return s.mul_(1 - s).mul_((_HIGH - _LOW) / _TEMPERATURE).mul_(inside)

    def settle(self) -> None:
        for name, weight in self.weights.items():
            final = _stretched(self.scores[name].detach().sigmoid()).clamp_(0, 1)
            weight.view(self._views[name]).mul_(final)

    def _concrete(self, name: str, score: Tensor) -> Tensor:
        return self.noise(name).logit_().add_(score).div_(_TEMPERATURE).sigmoid_()


def _stretched(s: Tensor) -> Tensor:
    return torch.mul(s, _HIGH - _LOW).add_(_LOW)
