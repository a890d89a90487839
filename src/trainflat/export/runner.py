"""What runs an exported file: token arrays in, logits out, whichever library does the work."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OUTPUTS = {1: ("logits",), 2: ("start_logits", "end_logits")}  # of a model, by how many they are


class Runner(nn.Module, ABC):
    """A file that is open.

    As a module it takes a batch by name, passes over what it has no input for, and gives logits by name, as a
    transformers model does. ``run`` does the same for arrays.

    Attributes:
        inputs: Names of what it takes, ``input_ids`` and others of its shape, in order.
        outputs: Names of what it gives: ``logits`` [N, classes], or ``start_logits`` and ``end_logits`` [N, T].
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    @abstractmethod
    def run(self, arrays: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """One forward pass.

        Shape suffixes: N rows, T tokens.

        Args:
            arrays: [N, T] by name, for each of ``inputs``.

        Returns:
            An array for each of ``outputs``.
        """

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        found = self.run({name: batch[name].numpy() for name in self.inputs})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}

    def train(self, mode: bool = True) -> "Runner":
        """Does nothing: what is in a file has one mode."""
        del mode
        return self

    def __getstate__(self) -> Any:
        raise TypeError("a file that is open cannot be copied or pickled. Open it again where it is needed.")
