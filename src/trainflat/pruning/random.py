"""Random pruning: the control that any other score has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.base import Pruner


class RandomPruner(Pruner):
    """Scores a weight by chance; for one seed a sparser mask is a subset of a denser one.

    Example:
        >>> model = torch.nn.Linear(8, 8)
        >>> first, second = (RandomPruner(model, sparsity=s, seed=1).select() for s in (0.5, 0.75))
        >>> second.zeros, second.issubset(first)
        (48, True)
    """

    def scores(self) -> Mapping[str, Tensor]:
        # drawn on the CPU, so that a seed means the same on every device
        generator = torch.Generator().manual_seed(self.seed)
        return {name: torch.rand(w.shape, generator=generator) for name, w in self.weights.items()}
