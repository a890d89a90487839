"""``torch.export``: a program of the forward pass that needs torch, but neither transformers nor this package."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable

FILE = "model.pt2"


class TorchExport(Exporter):
    """A program for torch.export.load, with free batch and length."""

    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """One file, ``model.pt2``."""
        with traceable(source, "torch-export"):
            shapes = dynamic_shapes(source)
            program = torch.export.export(Logits(source), (), example(source), dynamic_shapes=shapes, strict=False)
            torch.export.save(program, folder / FILE)

    def read(self, source: Source, folder: Path) -> nn.Module:
        """The program, run by torch."""
        return _Program(torch.export.load(folder / FILE).module(), source)


class _Program(nn.Module):
    def __init__(self, program: nn.Module, source: Source) -> None:
        super().__init__()
        self.program, self.inputs, self.outputs = program, source.inputs, source.outputs

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        found = self.program(**{name: batch[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))

    def train(self, mode: bool = True) -> "_Program":  # a program has no mode
        return self
