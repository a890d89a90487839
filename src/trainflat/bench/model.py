"""Models in folders, by torch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.engines import Engine, Tokens
from trainflat.loading import load

_SPANS = ("start_logits", "end_logits")


class TorchModel(Engine):
    """torch, running what `trainflat.load` reads: dense, masked, int8 or sparse."""

    suffixes = ("",)

    def __init__(self, model: Any) -> None:
        # Types of tokens are left out, as where a batch has one text per row: the model then takes zeros.
        super().__init__(("input_ids", "attention_mask"), ("logits",))
        self.model = model
        if type(model).__name__.endswith("ForQuestionAnswering"):
            self.outputs = _SPANS

    @classmethod
    def open(cls, path: Path, threads: int) -> "TorchModel":
        """torch has one number of threads per process, which is set."""
        torch.set_num_threads(threads)
        return cls(load(path))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        """See `Engine.run`."""
        with torch.inference_mode():
            found = self.model(**{name: torch.from_numpy(tokens[name]) for name in self.inputs})
        return [found[name].numpy() for name in self.outputs]
