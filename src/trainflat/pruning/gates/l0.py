"""L0 regularisation with hard-concrete gates (Louizos, Welling and Kingma, ICLR 2018, arXiv:1712.01312)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import nn

from trainflat.core.schedules import SCHEDULED, make_schedule
from trainflat.core.settings import Maybe
from trainflat.pruning.gates.functions import HardConcrete
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions, ScoreRate
from trainflat.pruning.gates.pressure import Lambda, Target, one_of_both, penalty_or_target


class L0(MaskOptions, LearnedMask):
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

    penalty: Lambda = None
    target_sparsity: Target = None
    schedule: Annotated[Any, Maybe(SCHEDULED)] = None
    score_lr: ScoreRate = 0.1

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        function = HardConcrete(self.first_score)
        pressure = penalty_or_target(function, self.penalty, self.target_sparsity)
        LearnedMask.__init__(self, model, function, pressure, **self.for_mask())

    @property
    def kind(self) -> str:
        return "HardConcrete"  # as checkpoints have called it from the start

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        """Decides which of ``penalty`` and ``target_sparsity`` holds, and the schedule of that one."""
        target = options["target_sparsity"]
        schedule = options["schedule"] or make_schedule("constant" if target is None else "cubic")
        return {**one_of_both(options["penalty"], target, cls.published), "schedule": schedule}
