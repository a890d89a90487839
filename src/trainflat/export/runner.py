"""Runs an exported file as a module, whichever engine does the work."""

from typing import Any

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError, one_line
from trainflat.engines import Engine, Tokens


class Runner(nn.Module):
    """Holds an open file as a module.

    As a module it takes a batch by name, passes over what it has no input for, and gives logits by name, as a
    transformers model does. ``run`` does the same for arrays.

    Attributes:
        inputs: Names of what it takes, ``input_ids`` and others of its shape, in order.
        outputs: Names of what it gives: ``logits`` [N, classes], or ``start_logits`` and ``end_logits`` [N, T].
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine, self.inputs, self.outputs = engine, engine.inputs, engine.outputs

    def run(self, tokens: Tokens) -> list[Any]:
        """Runs one forward pass over arrays [N, T] by name (N rows, T tokens); an array for each of ``outputs``.

        Raises:
            InputError: the file takes no such batch.
        """
        try:
            return list(self.engine.run(tokens))
        except InputError:
            raise
        except Exception as error:  # each runtime has its own
            shape = "x".join(map(str, next(iter(tokens.values())).shape))
            raise InputError(
                f"the file fails on a batch of {shape} tokens: {one_line(error)}. Choose another format."
            ) from error

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        found = self.run({name: batch[name].numpy() for name in self.inputs if name in batch})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}

    def train(self, mode: bool = True) -> "Runner":
        """Does nothing: what is in a file has one mode."""
        del mode
        return self

    def __getstate__(self) -> Any:
        raise TypeError("a file that is open cannot be copied or pickled. Open it again where it is needed.")
