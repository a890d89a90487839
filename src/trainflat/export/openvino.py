"""OpenVINO: the fastest of the engines that were tried on x86 processors."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable
from trainflat.export.runner import Runner

_TELEMETRY = "openvino_telemetry"


class OpenVino(Exporter):
    """A graph for OpenVINO, with free batch and length."""

    file = "model.xml"
    extra = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """Two files, ``model.xml`` and ``model.bin``."""
        save(converted(source), folder / self.file)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        """The graph, run by OpenVINO on the CPU, tuned for a single request at a time."""
        return _Compiled(folder / cls.file, threads or torch.get_num_threads())


class _Compiled(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",  # where weights alone are int8: faster than the default of 32
        }
        with unobserved():
            import openvino

            compiled = openvino.Core().compile_model(path, "CPU", settings)
        super().__init__(*([port.any_name for port in ports] for ports in (compiled.inputs, compiled.outputs)))
        self.request = compiled.create_infer_request()

    def run(self, arrays: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        found = self.request.infer(dict(arrays))
        return [found[name] for name in self.outputs]


def converted(source: Source) -> Any:
    """The model as OpenVINO has it in memory.

    Raises:
        InputError: it cannot be traced or converted.
    """
    with unobserved(), traceable(source, "openvino"):
        import openvino

        shapes = dynamic_shapes(source)
        program = torch.export.export(Logits(source), (), example(source), dynamic_shapes=shapes, strict=False)
        model = openvino.convert_model(program)
    for port, name in zip(model.outputs, source.outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def save(model: Any, path: Path) -> None:
    """Writes float32 as float32, which OpenVINO would else halve."""
    with unobserved():
        import openvino

        openvino.save_model(model, path, compress_to_fp16=False)


@contextmanager
def unobserved() -> Iterator[None]:
    """Inside, OpenVINO and nncf are imported without the package that reports each use of them to its makers.

    That package takes silence for consent, waits seconds for a network that may not be there, and leaves files in the
    home folder. Whoever imported it before has chosen it and keeps it.
    """
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
