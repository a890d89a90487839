"""A score."""

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor

from trainflat.core.settings import Number
from trainflat.pruning.scores.base import Score, ScoreInputs


class ToyScore(Score):
    """Scores a weight by its value, sign and all."""

    factor: Annotated[float, Number("is a number", lambda x: True)] = 1.0

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        return {name: self.factor * w.detach() for name, w in inputs.weights.items()}
