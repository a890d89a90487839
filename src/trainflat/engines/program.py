"""Runs ``torch.export`` programs with torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.engines.base import Engine, Tokens


class TorchProgram(Engine):
    """Runs an exported program with torch alone, without transformers.

    Loading one unpickles parts of it, which can run any code of its author: it has to be trusted as any program.
    """

    suffixes = (".pt2",)

    def __init__(self, program: Any) -> None:
        inputs = program.graph_signature.user_inputs
        outputs = program.graph_signature.user_outputs
        # The program names outputs after nodes of its graph ("add_7"); a pair of them can only be the ends of a span.
        super().__init__(inputs, ("start_logits", "end_logits") if len(outputs) == 2 else outputs)
        self.module = program.module()

    @classmethod
    def open(cls, path: Path, threads: int) -> "TorchProgram":
        """Opens a program and sets torch's number of threads, which holds for the whole process."""
        import torch

        torch.set_num_threads(threads)
        return cls(torch.export.load(path))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            found = self.module(**{name: torch.from_numpy(value) for name, value in self.taken(tokens).items()})
        return [each.numpy() for each in found]
