"""A learned mask."""

from typing import Any

from torch import nn

from trainflat.pruning.gates.functions import TopK
from trainflat.pruning.gates.learned import LearnedMask, MaskOptions
from trainflat.pruning.options import SparsityOption


class ToyGate(MaskOptions, LearnedMask):
    """Keeps the rows with the highest scores."""

    sparsity: SparsityOption = 0.5

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        MaskOptions.__init__(self, *args, **options)
        LearnedMask.__init__(self, model, TopK(self.sparsity), **self.for_mask())
