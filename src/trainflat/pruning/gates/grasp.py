"""Gradual GraSP (Wang, Zhang and Grosse, ICLR 2020, arXiv:2002.07376; Lubana and Dick, ICLR 2021)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.core.schedules import Schedule
from trainflat.pruning.base import Scope
from trainflat.pruning.gates.measured import MeasuredGate
from trainflat.pruning.grasp import GraspPruner


class GradualGrasp(MeasuredGate):
    """Drops the weights whose removal raises the norm of the gradient most, by θ·Hg.

    Departs from Wang et al., who prune once, before training: it is the gradual use of Lubana and Dick
    (arXiv:2009.11839), who find that raising the norm in a trained model can harm it; ``gradient-norm`` is safer.

    Args:
        model: As for :class:`MeasuredGate`.
        sparsity: Share to drop.
        scope: Who competes.
        schedule: When the sparsity rises.
        every: Optimizer steps between two choices.
        rows: Training rows that a choice looks at.
        batch_size: Rows per pass.
        temperature: Divides the logits; 200 in the published code.
    """

    pruner = GraspPruner

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        scope: Scope = "layer",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        every: int = 100,
        *,
        rows: int = 512,
        batch_size: int = 16,
        temperature: float = 200.0,
    ) -> None:
        super().__init__(
            model, sparsity, scope, schedule, every, rows=rows, batch_size=batch_size, temperature=temperature
        )
