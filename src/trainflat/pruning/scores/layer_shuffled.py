"""Layer-shuffled pruning: a control (Frankle et al., ICLR 2021, arXiv:2009.08576)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.scores.base import Score, ScoreInputs


class LayerShuffled(Score):
    """Shuffles the magnitudes within each matrix: as many weights go as by magnitude pruning, at random places.

    What it keeps of magnitude pruning is the density of each layer; what it loses is which weights. Of weights that
    masks have pruned already the magnitudes stay where they are.
    """

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(inputs.seed)
        magnitudes = {name: w.detach().abs().cpu() for name, w in inputs.weights.items()}
        if inputs.masks is None:
            return {name: _shuffled(m.flatten(), generator).view(m.shape) for name, m in magnitudes.items()}
        scores = {}
        for name, m in magnitudes.items():
            kept = inputs.masks[name]
            scores[name] = torch.zeros_like(m)
            scores[name][kept] = _shuffled(m[kept], generator)
        return scores


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(values.numel(), generator=generator)]
