"""Magnitude pruning (Han et al., NeurIPS 2015, arXiv:1506.02626; gradually: Zhu and Gupta 2017, arXiv:1710.01878)."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.pruning.keys import Magnitudes
from trainflat.pruning.scores.base import Score, ScoreInputs


class Magnitude(Score):
    """Scores a weight by its absolute value."""

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        return Magnitudes(inputs.weights)
