"""L0 regularisation with hard-concrete gates (Louizos, Welling and Kingma, ICLR 2018, arXiv:1712.01312)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from trainflat.core.schedules import Schedule
from trainflat.core.settings import checked
from trainflat.pruning.gates.functions import HardConcrete
from trainflat.pruning.gates.learned import LearnedMask, PerturbOption, ScoreRate, UnitOption
from trainflat.pruning.gates.pressure import penalty_or_target


class L0(LearnedMask):
    """Draws a gate in [0, 1] for each weight at each step, and learns the odds that it is 0.

    Gates are :class:`~trainflat.pruning.gates.HardConcrete`, and the penalty is the mean of their chances to be open.

    Args:
        model: Whose weights are masked.
        penalty: lambda, at least 0; None is 125 where there is no target, as the baseline of Sanh et al. (2020), whose
            other values are the defaults too.
        target_sparsity: Share of the scores to drop in the end; None leaves lambda as it is.
        schedule: When lambda rises; None is constant, as published. With a target, when the sparsity does; None is
            cubic.
        unit: See :class:`~trainflat.pruning.gates.LearnedMask`; also for the other arguments.
    """

    published: ClassVar[float] = 125.0
    first_score: ClassVar[float] = 2.197

    @checked
    def __init__(
        self,
        model: nn.Module,
        penalty: float | None = None,
        target_sparsity: float | None = None,
        *,
        schedule: str | Mapping[str, Any] | Schedule | None = None,
        unit: UnitOption = "weight",
        score_lr: ScoreRate = 0.1,
        perturb: PerturbOption = None,
    ) -> None:
        function = HardConcrete(self.first_score)
        pressure = penalty_or_target(function, penalty, target_sparsity, self.published)
        schedule = schedule or ("constant" if target_sparsity is None else "cubic")
        super().__init__(model, function, pressure, units=unit, schedule=schedule, score_lr=score_lr, perturb=perturb)
        self.penalty = pressure.penalty if target_sparsity is None else None
        self.target_sparsity, self.unit = pressure.target, unit

    @property
    def kind(self) -> str:
        return "HardConcrete"  # as checkpoints have called it from the start
