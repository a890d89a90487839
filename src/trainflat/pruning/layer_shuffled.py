"""Layer-shuffled pruning: a control (Frankle et al., ICLR 2021, arXiv:2009.08576)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.base import Pruner


class LayerShuffledPruner(Pruner):
    """Drops from every matrix as many weights as magnitude pruning would, at random places.

    What it keeps of magnitude pruning is the density of each layer; what it loses is which weights.

    Example:
        >>> model = torch.nn.Linear(8, 8)
        >>> LayerShuffledPruner(model, sparsity=0.75, seed=1).select().zeros
        48
    """

    def scores(self) -> Mapping[str, Tensor]:
        # Magnitudes that changed places within their matrix: the cut then falls as it would have, matrix by matrix.
        generator = torch.Generator().manual_seed(self.seed)
        return {name: self._shuffled(name, w.detach().abs().cpu(), generator) for name, w in self.weights.items()}

    def _shuffled(self, name: str, magnitudes: Tensor, generator: torch.Generator) -> Tensor:
        if self.masks is None:
            order = torch.randperm(magnitudes.numel(), generator=generator)
            return magnitudes.flatten()[order].view(magnitudes.shape)
        kept = self.masks[name]  # only what is still there changes places
        order = torch.randperm(int(kept.sum()), generator=generator)
        scores = torch.zeros_like(magnitudes)
        scores[kept] = magnitudes[kept][order]
        return scores
