"""Exports by ``torch.export``: a program that needs torch, but neither transformers nor this package."""

from io import BytesIO
from pathlib import Path

import torch

from trainflat.engines.program import TorchProgram
from trainflat.export.base import Exporter, Source
from trainflat.export.graph import export_program, traceable
from trainflat.export.runner import Runner


class TorchExport(Exporter):
    """A program for torch.export.load, with free batch and length; at most 1024 rows at once."""

    file = "model.pt2"
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """Writes one file, ``model.pt2``."""
        with traceable(source, "torch-export"):
            program = export_program(source)
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # source lines, with paths of this machine
        content = BytesIO()  # torch writes files by itself, and aborts the process where the disk is full
        torch.export.save(program, content)
        (folder / self.file).write_bytes(content.getbuffer())

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        """Opens the program in torch, of which `threads` sets all threads."""
        return Runner(TorchProgram.open(folder / cls.file, threads or torch.get_num_threads()))
