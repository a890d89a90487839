"""A measure of sharpness."""

from dataclasses import dataclass

from trainflat.objective.base import Objective
from trainflat.objective.passes import Effort, Kind
from trainflat.sharpness.measure import Measure


@dataclass(frozen=True)
class ToyResult:
    """The loss."""

    loss: float
    effort: Effort

    def figures(self) -> dict[str, float]:
        return {"toy_loss": self.loss}


@dataclass(frozen=True)
class ToyMeasure(Measure):
    """The loss itself."""

    def names(self) -> list[str]:
        return ["toy_loss"]

    def passes(self) -> dict[Kind, float]:
        return {"values": 1}

    def compute(self, objective: Objective, seed: int = 0) -> ToyResult:
        self.check(objective, seed)
        with objective.taking("toy", 1) as effort:
            return ToyResult(objective.value(), effort())
