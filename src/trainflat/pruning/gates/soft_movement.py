"""Movement pruning (Sanh, Wolf and Rush, NeurIPS 2020, arXiv:2005.07683), with a soft threshold."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import nn

from trainflat.core.settings import Number
from trainflat.pruning.gates.functions import Threshold
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions
from trainflat.pruning.gates.pressure import Lambda, Target, one_of_both, penalty_or_target

_TAU = Number("is what the sigmoid of a score must exceed, in (0, 0.5)", lambda x: 0 < x < 0.5)
ThresholdOption = Annotated[float, _TAU]


class SoftMovement(MaskOptions, LearnedMask):
    r"""Keeps the weights whose score is above a threshold; a penalty lowers all scores.

    ``M = sigmoid(S) > threshold`` as in the published code (the paper writes ``S > tau``), scores start at 0 and are
    learned straight through. Threshold and lambda rise together by ``schedule``, as published; with a
    ``target_sparsity`` the threshold is there from the start and lambda is tuned, see
    :class:`~trainflat.pruning.gates.pressure.Controller`. Under Adam a score moves by about ``score_lr`` per
    step at most, so that it takes 220 steps at 0.01 to fall below a threshold of 0.1: short runs need a higher rate.

    Departs from the published code, which always keeps 0.5 % of a matrix: here one may be emptied. With a
    ``target_sparsity`` all matrices compete for what is left.

    Args:
        model: Whose weights are masked.
        penalty: lambda, at least 0; None is 400, as published, where there is no target.
        target_sparsity: Share of the scores to drop in the end; None leaves lambda as it is.
        threshold: In (0, 0.5), so that nothing is dropped at first; 0.1 in the published code.
        schedule: When threshold and lambda rise, or with a target, when the sparsity does.
        unit: See :class:`~trainflat.pruning.gates.LearnedMask`; also for the other arguments.
    """

    published: ClassVar[float] = 400.0

    penalty: Lambda = None
    target_sparsity: Target = None
    threshold: ThresholdOption = 0.1

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        function = Threshold(self.threshold, rises=self.target_sparsity is None)
        pressure = penalty_or_target(function, self.penalty, self.target_sparsity)
        LearnedMask.__init__(self, model, function, pressure, **self.for_mask())

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        """Decides which of ``penalty`` and ``target_sparsity`` holds."""
        return one_of_both(options["penalty"], options["target_sparsity"], cls.published)
