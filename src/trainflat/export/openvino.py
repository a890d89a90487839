"""Exports to OpenVINO, the fastest of the engines that were tried on x86 processors."""

from pathlib import Path
from typing import Any

import torch

from trainflat.engines.openvino import OpenVinoRuntime, unobserved
from trainflat.export.base import Exporter, Source
from trainflat.export.graph import export_program, traceable
from trainflat.export.runner import Runner


class OpenVino(Exporter):
    """A graph for OpenVINO, with free batch and length."""

    file = "model.xml"
    extra = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """Writes two files, ``model.xml`` and ``model.bin``."""
        save(converted(source), folder / self.file)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        """Opens the graph in OpenVINO on the CPU, tuned for a single request at a time."""
        return Runner(OpenVinoRuntime.open(folder / cls.file, threads or torch.get_num_threads()))


def converted(source: Source) -> Any:
    """Converts a model to OpenVINO, in memory. Raises InputError if it cannot be traced or converted."""
    with unobserved(), traceable(source, "openvino"):
        import openvino

        model = openvino.convert_model(export_program(source))
    for port, name in zip(model.outputs, source.outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def save(model: Any, path: Path) -> None:
    """Writes float32 as float32, which OpenVINO would else halve."""
    with unobserved():
        import openvino

        openvino.save_model(model, path, compress_to_fp16=False)
