"""Movement pruning (Sanh, Wolf and Rush, NeurIPS 2020, arXiv:2005.07683), with a hard threshold."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainflat.core.schedules import Schedule
from trainflat.pruning.choice import keep_highest
from trainflat.pruning.gates.scored import Perturb, ScoredGate
from trainflat.pruning.gates.threshold import Threshold
from trainflat.pruning.gates.units import Unit
from trainflat.pruning.options import SCOPE, SHARE, STEPS, Scope


class HardMovement(ScoredGate):
    """Keeps the weights with the highest scores; a score falls while its weight moves towards 0.

    ``M = Top_v(S)``, scores start at 0 and are learned straight through: ``dL/dS = G * W``, for pruned weights too, so
    that these can come back. The kept share v falls by ``schedule``. In the published code the scores are parameters of
    the model, so that its gradients and theirs are clipped together; FlatTrainer does so.

    Args:
        model: Whose weights are gated.
        sparsity: Share of the scores, one per ``unit``, to drop in the end, in [0, 1).
        scope: ``"layer"`` ranks each matrix on its own, as published; ``"global"`` all scores together, also so that a
            matrix may be emptied: ``--global_topk`` of the published code leaves each one 0.5 % at least.
        schedule: When the sparsity rises; above 0 only after the first step, because all scores begin alike.
        refresh: Optimizer steps for which a threshold is kept; 1 selects exactly for every step, as published. What is
            evaluated and what training ends with is always selected exactly.
        unit: See :class:`~trainflat.pruning.gates.scored.ScoredGate`; also for the other arguments.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model, inputs = torch.nn.Linear(8, 1, bias=False), torch.ones(4, 8)
        >>> gate = HardMovement(model, sparsity=0.5, schedule="linear", refresh=1)
        >>> gate.begin(total_steps=20)
        >>> groups = [{"params": model.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-2)
        >>> for step in range(20):
        ...     optimizer.zero_grad()
        ...     with gate.passes():
        ...         model(inputs).square().mean().backward()
        ...     optimizer.step()
        ...     gate.advance(step + 1)
        >>> gate.finish().sparsity, int((model.weight == 0).sum())
        (0.5, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        *,
        scope: Scope = "layer",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        refresh: int = 16,
        unit: Unit = "weight",
        score_lr: float = 1e-2,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(model, schedule, unit=unit, score_lr=score_lr, perturb=perturb)
        self.sparsity, self.scope = SHARE.read("sparsity", sparsity), SCOPE.read("scope", scope)
        self.refresh = int(STEPS.read("refresh", refresh))

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.sparsity

    def prepare(self) -> None:
        self.refuse_denser_than(self.sparsity)
        super().prepare()
        self._threshold = Threshold()

    def advance(self, step: int) -> None:
        super().advance(step)
        if step % self.refresh == 0:
            self._threshold.refresh(self.scores, self.wanted, self.scope)

    @property
    def wanted(self) -> float:
        """Share of the scores to drop at this step."""
        return self.schedule.value(self.step, self.total_steps, 0.0, self.sparsity)

    def factor(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        return self._threshold.write(name, score, out)

    def kept(self) -> Mapping[str, Tensor]:
        return keep_highest(self.scores, self.wanted, self.scope)

    def logs(self) -> dict[str, float]:
        return {"sparsity": self.wanted}

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | self._threshold.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        self._threshold.load_state_dict(state, self.scores)
