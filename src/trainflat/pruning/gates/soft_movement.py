"""Movement pruning (Sanh, Wolf and Rush, NeurIPS 2020, arXiv:2005.07683), with a soft threshold."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.schedules import Schedule
from trainflat.pruning.gates.penalized import PenalizedGate
from trainflat.pruning.gates.scored import Perturb
from trainflat.pruning.gates.units import Unit
from trainflat.pruning.options import NON_NEGATIVE


class SoftMovement(PenalizedGate):
    r"""Keeps the weights whose score is above a threshold; a penalty lowers all scores.

    ``M = sigmoid(S) > threshold`` as in the published code (the paper writes ``S > tau``), scores start at 0 and are
    learned straight through. Threshold and lambda rise together by ``schedule``, as published; with a
    ``target_sparsity`` the threshold is there from the start and lambda is tuned, see
    :class:`~trainflat.pruning.gates.penalized.PenalizedGate`. Under Adam a score moves by about ``score_lr`` per
    step at most, so that it takes 220 steps at 0.01 to fall below a threshold of 0.1: short runs need a higher rate.

    Departs from the published code, which always keeps 0.5 % of a matrix: here one may be emptied. With a
    ``target_sparsity`` all matrices compete for what is left.

    Args:
        model: Whose weights are gated.
        penalty: lambda, at least 0; None is 400, as published, where there is no target.
        target_sparsity: Share of the scores to drop in the end; None leaves lambda as it is.
        threshold: In (0, 0.5), so that nothing is dropped at first; 0.1 in the published code.
        schedule: When threshold and lambda rise, or with a target, when the sparsity does.
        unit: See :class:`~trainflat.pruning.gates.scored.ScoredGate`; also for the other arguments.
    """

    published: ClassVar[float] = 400.0

    def __init__(
        self,
        model: nn.Module,
        penalty: float | None = None,
        target_sparsity: float | None = None,
        *,
        threshold: float = 0.1,
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        unit: Unit = "weight",
        score_lr: float = 1e-2,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(
            model, penalty, target_sparsity, schedule=schedule, unit=unit, score_lr=score_lr, perturb=perturb
        )
        self.threshold = NON_NEGATIVE.read("threshold", threshold)
        if not 0 < self.threshold < 0.5:
            raise InputError(f"threshold is what the sigmoid of a score must exceed, in (0, 0.5), got {threshold!r}.")

    @property
    def cut(self) -> float:
        share = 1.0 if self.target_sparsity is not None else self.schedule.share(self.step, self.total_steps)
        tau = self.threshold * share
        return math.log(tau / (1 - tau)) if tau else -math.inf

    def gate(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        return torch.gt(score, self.cut, out=out)
