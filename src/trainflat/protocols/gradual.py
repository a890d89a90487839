"""Pruning while the model trains (Zhu and Gupta 2017; Sanh, Wolf and Rush 2020)."""

from collections.abc import Iterator
from typing import Annotated

from torch import nn

from trainflat.core.schedules import Schedule
from trainflat.core.settings import Section, Settings
from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.workspace import Workspace, train
from trainflat.pruning.gates import GATES, Gate, final_sparsity


class Gradual(Protocol):
    """Trains the pre-trained weights once, and prunes them on the way.

    The best checkpoint is looked for only where the model is as sparse as it will be in the end, so a gate's schedule
    should hold the final sparsity over some evaluations.

    Args:
        gate: Which weights stay, and when the others go; see ``docs/gates.md``.
        freeze_embeddings: Leaves the embeddings as they are, as published.
    """

    def __init__(self, gate: Annotated[Section, GATES] = "magnitude", freeze_embeddings: bool = True) -> None:
        self.gate, self.freeze_embeddings = GATES.read(gate), freeze_embeddings
        self.sparsity = final_sparsity(self.gate)
        if self.sparsity is not None:
            check_sparsities([self.sparsity])

    def plan(self) -> list[Planned]:
        """Lists one stage, called ``pruned`` where a penalty decides how sparse it gets."""
        if self.sparsity is None:
            return [Planned("pruned", 0.0, trained=True, open=True)]
        return [Planned(stage_name(self.sparsity), self.sparsity, trained=True)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the schedule fits the steps, and the gate the model."""
        check_gate(self.gate, steps, model)

    def curve(self, steps: int) -> tuple[str, list[tuple[int, float]]]:
        return gate_curve(self.gate, steps)

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        self.check(workspace.steps, workspace.encoder.model)
        [stage] = self.plan()
        yield workspace.store.recall(stage) or train(
            workspace, stage, workspace.untrained(), gate=self.gate, freeze_embeddings=self.freeze_embeddings
        )


def check_gate(gate: Settings, steps: int | None, model: nn.Module | None) -> None:
    """Checks that a gate's schedule fits the steps, and the gate the model; what is None is not known yet.

    Raises:
        InputError: one of the two does not.
    """
    kind: type[Gate] = gate.member
    if model is not None:
        kind.check_model(gate, model)
    if steps is not None:
        kind.check_length(gate, steps)


def gate_curve(gate: Settings, steps: int) -> tuple[str, list[tuple[int, float]]]:
    """Names what a gate's schedule raises in so many steps, with (step, value) of its path."""
    schedule: Schedule = gate.schedule
    sparsity = final_sparsity(gate)
    if sparsity is not None:
        return "sparsity", schedule.curve(steps, 0.0, sparsity)
    return "lambda", schedule.curve(steps, 0.0, gate.penalty)
