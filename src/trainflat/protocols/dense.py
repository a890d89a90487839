"""Training alone: the model that all others are compared with."""

from collections.abc import Iterator

from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.workspace import Workspace, train


class Dense(Protocol):
    """Trains once and prunes nothing."""

    unstructured = False

    def plan(self) -> list[Planned]:
        return [Planned("dense", 0.0, trained=True)]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        [stage] = self.plan()
        yield workspace.store.recall(stage) or train(workspace, stage, workspace.untrained())
