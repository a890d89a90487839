"""Runs programs of ``torch.export`` by torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.engines.base import Engine, Tokens


class TorchProgram(Engine):
    """Runs an exported program by torch; transformers is not needed.

    Reading one unpickles parts of it, so that its maker can have any code run: it has to be trusted as a program is.
    """

    suffixes = (".pt2",)

    def __init__(self, program: Any) -> None:
        inputs = program.graph_signature.user_inputs
        outputs = program.graph_signature.user_outputs
        super().__init__(inputs, ("start_logits", "end_logits") if len(outputs) == 2 else outputs)
        self.module = program.module()

    @classmethod
    def open(cls, path: Path, threads: int) -> "TorchProgram":
        """Opens a program; sets the number of threads of torch, which is one per process."""
        import torch

        torch.set_num_threads(threads)
        return cls(torch.export.load(path))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        """Runs one forward pass; see `Engine.run`."""
        import torch

        with torch.inference_mode():
            found = self.module(**{name: torch.from_numpy(value) for name, value in self.taken(tokens).items()})
        return [each.numpy() for each in found]
