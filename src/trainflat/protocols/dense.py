"""Training alone: the model that all others are compared with."""

from collections.abc import Iterator

from torch import nn

from trainflat.protocols.base import Planned, Produced, Protocol
from trainflat.protocols.bench import Bench


class Dense(Protocol):
    """Trains once and prunes nothing."""

    unstructured = False

    def plan(self) -> list[Planned]:
        """One stage."""
        return [Planned("dense", 0.0, trained=True)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Takes any rows and any encoder."""

    def run(self, bench: Bench) -> Iterator[Produced]:
        """Trains from the pre-trained weights."""
        [stage] = self.plan()
        yield bench.train(stage, start=bench.initial)
