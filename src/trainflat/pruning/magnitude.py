"""Magnitude pruning (Han et al., NeurIPS 2015, arXiv:1506.02626)."""

from collections.abc import Mapping

from torch import Tensor

from trainflat.pruning.base import Pruner
from trainflat.pruning.keys import Magnitudes


class MagnitudePruner(Pruner):
    """Scores a weight by its absolute value.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 8)
        >>> masks = MagnitudePruner(model, sparsity=0.75).prune()
        >>> int((model.weight != 0).sum())
        16
    """

    def scores(self) -> Mapping[str, Tensor]:
        return Magnitudes(self.weights)
