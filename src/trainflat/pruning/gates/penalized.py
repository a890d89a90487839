"""Gates whose sparsity comes of a penalty on their scores."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.schedules import Schedule
from trainflat.pruning.choice import keep_highest
from trainflat.pruning.gates.scored import Perturb, ScoredGate
from trainflat.pruning.gates.threshold import Threshold
from trainflat.pruning.gates.units import Unit
from trainflat.pruning.options import NON_NEGATIVE, SHARE

_PROPORTIONAL, _INTEGRAL, _STRONGEST = 10.0, 0.1, 10.0
_MEMORY = 0.9  # of the running mean of the data's gradient
_NEAR = 0.01  # of the target: as near as counts as there


class PenalizedGate(ScoredGate):
    r"""Adds to the loss ``lambda * mean over matrices of the mean of sigmoid(S - shift)``.

    What sparsity a lambda leads to depends on the task, the length of the run and the learning rates. With a
    ``target_sparsity`` lambda is tuned while training. Adam makes steps of about one size, so a penalty counts only
    beside the data's gradient of the scores, whose mean size r is followed (``r = 0.9 r + 0.1 mean |dL/dS|``). Sparsity
    is seen coming: p is the mean over scores of their progress from the first value to the cut, between 0 and 1. With
    the sparsity s* that ``schedule`` wants by now and N scores in all, after every step::

        e      = s* - p
        I      = clip(I + 0.1 * e, -10, 10)
        u      = clip(I + 10 * e, -10, 10)            a proportional-integral controller
        lambda = 4 * N * r * u                        at u = 1 the penalty's largest slope is r

    A negative lambda lifts the scores of a gate that is ahead of its schedule. Where the gate lags behind, the lowest
    scores above the cut are dropped too, straight through, chosen anew for every step; so s* is always reached, and
    missed only by a gate that is sparser. A checkpoint counts as the best within 0.01 of the target.

    A method writes :meth:`gate` and :attr:`cut`, with the gradient's ``slope`` if it is not 1.

    Args:
        model: Whose weights are gated.
        penalty: lambda; None for the published value, or where there is a target.
        target_sparsity: Share of the scores to drop in the end, in [0, 1); None leaves lambda as it is.
        schedule: When lambda (times its share) rises, or with a target, when the sparsity does.
        unit: See :class:`~trainflat.pruning.gates.scored.ScoredGate`; also for the other arguments.

    Raises:
        InputError: for lambda < 0, for both a lambda and a target, and for a target that is due before the first step.
    """

    published: ClassVar[float]
    """The paper's lambda."""

    shift: ClassVar[float] = 0.0

    def __init__(
        self,
        model: nn.Module,
        penalty: float | None = None,
        target_sparsity: float | None = None,
        *,
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        unit: Unit = "weight",
        score_lr: float = 1e-2,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(model, schedule, unit=unit, score_lr=score_lr, perturb=perturb)
        if penalty is not None and target_sparsity is not None:
            raise InputError(
                f"penalty {penalty} fixes lambda, target_sparsity {target_sparsity} tunes it. Give one of the two."
            )
        self.target_sparsity = None if target_sparsity is None else SHARE.read("sparsity", target_sparsity)
        self.penalty = penalty if penalty is None else NON_NEGATIVE.read("penalty", penalty)
        if self.penalty is None and self.target_sparsity is None:
            self.penalty = self.published

    @property
    @abstractmethod
    def cut(self) -> float:
        """Scores at it or below are dropped."""

    @abstractmethod
    def gate(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        """m(S) as :meth:`factor` is described, without regard to a target."""

    def factor(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        values = self.gate(name, score, out)
        if self.target_sparsity is None:
            return values
        return values.mul_(self._threshold.write(name, score, torch.empty_like(score)))

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return ("lambda", self.penalty or 0.0) if self.target_sparsity is None else ("sparsity", self.target_sparsity)

    @property
    def settled(self) -> bool:
        arrived = super().settled
        return arrived and (self.target_sparsity is None or self.dropped() - self.target_sparsity <= _NEAR)

    def prepare(self) -> None:
        if self.target_sparsity is not None:
            self.refuse_denser_than(self.target_sparsity)
        super().prepare()
        self.strength = self._control = self._integral = self._size = 0.0
        self._threshold = Threshold()

    def advance(self, step: int) -> None:
        super().advance(step)
        share = self.schedule.share(step, self.total_steps)
        if self.target_sparsity is None:
            self.strength = (self.penalty or 0.0) * share
            return
        # At every step: the penalty moves all scores one way, so that an older threshold soon drops another share.
        self._threshold.refresh(self.scores, self.wanted, "global")
        missed = self.wanted - self._progress()
        self._integral = _clip(self._integral + _INTEGRAL * missed)
        self._control = _clip(self._integral + _PROPORTIONAL * missed)

    @torch.no_grad()
    def penalize(self, weight: float) -> None:
        total = sum(score.numel() for score in self.scores.values())
        if self.target_sparsity is not None:
            now = sum(float(s.grad.abs().sum()) for s in self.scores.values() if s.grad is not None) / total / weight
            if math.isfinite(now):  # else a loss scaler will skip the step
                self._size = _MEMORY * self._size + (1 - _MEMORY) * now if self._size else now
            self.strength = 4 * total * self._size * self._control
        if not self.strength:
            return
        for name, score in self.scores.items():
            if score.grad is not None:
                own = weight * self.strength / (score.numel() * len(self.scores))
                share = torch.sub(score, self.shift, out=self.scratch(name, score.shape)).sigmoid_()
                score.grad.add_(share, alpha=own).addcmul_(share, share, value=-own)  # the slope of a sigmoid

    @property
    def wanted(self) -> float:
        """The sparsity to have at this step, where there is a target; else 0."""
        return self.schedule.value(self.step, self.total_steps, 0.0, self.target_sparsity or 0.0)

    @torch.no_grad()
    def dropped(self) -> float:
        """Share of the scores at the cut or below."""
        cut = self.cut
        gone = sum(int(torch.count_nonzero(score <= cut)) for score in self.scores.values())
        return gone / sum(score.numel() for score in self.scores.values())

    def kept(self) -> Mapping[str, Tensor]:
        if self.dropped() < self.wanted:
            return keep_highest(self.scores, self.wanted)
        cut = self.cut
        return {name: score.detach() > cut for name, score in self.scores.items()}

    def logs(self) -> dict[str, float]:
        return {"sparsity": max(self.dropped(), self.wanted), "penalty": self.strength}

    def state_dict(self) -> dict[str, Tensor]:
        numbers = torch.tensor([self.strength, self._control, self._integral, self._size], dtype=torch.float64)
        return super().state_dict() | self._threshold.state_dict() | {"penalty": numbers}

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        self._threshold.load_state_dict(state, self.scores)
        self.strength, self._control, self._integral, self._size = state["penalty"].tolist()

    @torch.no_grad()
    def _progress(self) -> float:
        """Mean over scores of their way from the first value to the cut, each between 0 and 1."""
        way, total = self.first_score - self.cut, 0.0
        for name, score in self.scores.items():
            done = torch.sub(score, self.first_score, out=self.scratch(name, score.shape)).div_(-way).clamp_(0, 1)
            total += float(done.sum())
        return total / sum(score.numel() for score in self.scores.values())


def _clip(value: float) -> float:
    return min(max(value, -_STRONGEST), _STRONGEST)
