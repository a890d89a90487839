"""Runs models in folders by torch, for the benchmark."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.engines import Engine, Tokens
from trainflat.export.loading import load
from trainflat.models import output_names

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class TorchModel(Engine):
    """Runs a model that `trainflat.load` reads, by torch: dense, masked, int8 or sparse."""

    suffixes = ("",)

    def __init__(self, model: Any) -> None:
        taken = inspect.signature(model.forward).parameters
        super().__init__([name for name in _INPUTS if name in taken], output_names(model))
        self.model = model

    @classmethod
    def open(cls, path: Path, threads: int) -> "TorchModel":
        """Loads the folder; sets torch's number of threads, which is one per process."""
        torch.set_num_threads(threads)
        return cls(load(path))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            found = self.model(**{name: torch.from_numpy(value) for name, value in self.taken(tokens).items()})
        return [found[name].numpy() for name in self.outputs]
