"""Runs OpenVINO and ONNX graphs with OpenVINO."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.engines.base import Engine, Tokens

_TELEMETRY = "openvino_telemetry"


class OpenVinoRuntime(Engine):
    """Runs a model with OpenVINO on the CPU, in float32 where values are not integers."""

    suffixes = (".xml", ".onnx")
    packages, extra = ("openvino",), "openvino"

    def __init__(self, compiled: Any) -> None:
        inputs = {port.any_name: port.element_type.to_dtype() for port in compiled.inputs}
        super().__init__(inputs, [port.any_name for port in compiled.outputs])
        self.request = compiled.create_infer_request()
        self.ports = list(compiled.outputs)

    @classmethod
    def open(cls, path: Path, threads: int) -> "OpenVinoRuntime":
        """Opens a file, or a model in memory, tuned for a single request at a time."""
        settings = {
            # The default is bfloat16 where the processor has it: another model than the one that was evaluated.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",  # with int8 weights alone: faster than the default of 32
        }
        with unobserved():
            import openvino

            return cls(openvino.Core().compile_model(path, "CPU", settings))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        found = self.request.infer(self.taken(tokens), share_inputs=True)
        return [np.array(found[port]) for port in self.ports]  # copied: the next request reuses this memory


@contextmanager
def unobserved() -> Iterator[None]:
    """Blocks OpenVINO's and nncf's telemetry package while they are imported in the block.

    The package sends data without being asked to, waits seconds for a network that may not be there, and writes into
    the home folder. A program that has imported it before has chosen it and keeps it.
    """
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
