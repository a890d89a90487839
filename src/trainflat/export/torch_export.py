"""``torch.export``: a program of the forward pass that needs torch, but neither transformers nor this package."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable
from trainflat.export.runner import OUTPUTS, Runner


class TorchExport(Exporter):
    """A program for torch.export.load, with free batch and length."""

    file = "model.pt2"
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """One file, ``model.pt2``."""
        with traceable(source, "torch-export"):
            shapes = dynamic_shapes(source)
            program = torch.export.export(Logits(source), (), example(source), dynamic_shapes=shapes, strict=False)
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # source lines, with paths of this machine
        torch.export.save(program, folder / self.file)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        """The program, run by torch on torch's threads."""
        del threads
        return _Program(folder / cls.file)


class _Program(Runner):
    def __init__(self, path: Path) -> None:
        program = torch.export.load(path)
        signature = program.graph_signature
        super().__init__(signature.user_inputs, OUTPUTS[len(signature.user_outputs)])
        self.program = program.module()

    @torch.inference_mode()
    def run(self, arrays: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        found = self.program(**{name: torch.from_numpy(arrays[name]) for name in self.inputs})
        return [one.numpy() for one in found]
