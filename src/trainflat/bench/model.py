"""Models in folders, by torch."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.engines import Engine, Tokens
from trainflat.loading import load

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_SPANS = ("start_logits", "end_logits")


class TorchModel(Engine):
    """torch, running what `trainflat.load` reads: dense, masked, int8 or sparse."""

    suffixes = ("",)

    def __init__(self, model: Any) -> None:
        taken = inspect.signature(model.forward).parameters
        spans = type(model).__name__.endswith("ForQuestionAnswering")
        super().__init__([name for name in _INPUTS if name in taken], _SPANS if spans else ("logits",))
        self.model = model

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
