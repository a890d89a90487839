"""A protocol."""

from collections.abc import Iterator
from dataclasses import replace

from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.workspace import Workspace, build_pruner, train
from trainflat.pruning import PRUNERS, PrunerSection


class ToyProtocol(Protocol):
    """Trains, then prunes once."""

    def __init__(self, pruner: PrunerSection = "magnitude") -> None:
        self.pruner = PRUNERS.read(pruner)

    def plan(self) -> list[Planned]:
        return [Planned("whole", 0.0, trained=True), Planned("half", 0.5, trained=False)]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        whole, half = self.plan()
        trained = workspace.store.recall(whole) or train(workspace, whole, workspace.untrained())
        yield trained
        copied = trained.copied(half)
        yield replace(copied, masks=build_pruner(workspace, copied.model, self.pruner, 0.5, "layer").prune())
