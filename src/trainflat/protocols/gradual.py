"""Pruning while the model trains (Zhu and Gupta 2017; Sanh, Wolf and Rush 2020)."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator
from torch import nn

from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.workspace import Workspace, train
from trainflat.pruning.gates import GATES, complete_options, make_gate


def completed(gate: Any) -> dict[str, Any]:
    """Completes a gate's section of a recipe with all its options.

    Raises:
        InputError: it names none, or options that cannot be used.
    """
    name, options = GATES.named(gate if isinstance(gate, str | Mapping) else {})
    return {"name": name, **complete_options(name, options)}


_MAGNITUDE = completed("magnitude")


class Gradual(Protocol):
    """Trains the pre-trained weights once, and prunes them on the way.

    The best checkpoint is looked for only where the model is as sparse as it will be in the end, so a gate's schedule
    should hold the final sparsity over some evaluations.

    Args:
        gate: Which weights stay, and when the others go; see ``docs/gates.md``.
        freeze_embeddings: Leaves the embeddings as they are, as published.
    """

    def __init__(
        self, gate: Annotated[dict[str, Any], BeforeValidator(completed)] = _MAGNITUDE, freeze_embeddings: bool = True
    ) -> None:
        self.gate, self.freeze_embeddings = completed(gate), freeze_embeddings
        options = self._options()
        self.sparsity = options.get("target_sparsity", options.get("sparsity"))
        if self.sparsity is not None:
            check_sparsities([self.sparsity])

    def plan(self) -> list[Planned]:
        """Lists one stage, called ``pruned`` where a penalty decides how sparse it gets."""
        if self.sparsity is None:
            return [Planned("pruned", 0.0, trained=True, open=True)]
        return [Planned(stage_name(self.sparsity), self.sparsity, trained=True)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the schedule fits the steps, and the gate the model."""
        gate = make_gate(self.gate["name"], model or nn.Module(), **self._options())
        if model is not None:
            gate.refuse_unfit()
        if steps is not None:
            gate.check_schedule(steps)

    def curve(self, steps: int) -> tuple[str, list[tuple[int, float]]]:
        """Returns the gate's schedule."""
        gate = make_gate(self.gate["name"], nn.Module(), **self._options())
        quantity, last = gate.scheduled_quantity
        return quantity, gate.schedule.curve(steps, 0.0, last)

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Trains and prunes."""
        self.check(workspace.steps, workspace.encoder.model)
        [stage] = self.plan()
        yield workspace.store.recall(stage) or train(
            workspace, stage, workspace.untrained(), gate=self.gate, freeze_embeddings=self.freeze_embeddings
        )

    def _options(self) -> dict[str, Any]:
        return {key: value for key, value in self.gate.items() if key != "name"}
