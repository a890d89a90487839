"""Runs ONNX graphs with onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.engines.base import Engine, Tokens

_TYPES = {"tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(float)": np.float32}


class OnnxRuntime(Engine):
    """Runs an ONNX file with onnxruntime on the CPU."""

    suffixes = (".onnx",)
    packages, extra = ("onnxruntime",), "onnx"

    def __init__(self, session: Any) -> None:
        inputs = {one.name: _TYPES.get(one.type, np.int64) for one in session.get_inputs()}
        super().__init__(inputs, [one.name for one in session.get_outputs()])
        self.session = session

    @classmethod
    def open(cls, path: Path, threads: int) -> "OnnxRuntime":
        """Opens a session whose threads share each operator; operators run one after the other."""
        # An encoder is a chain: running operators in parallel would only take threads from the matrix products.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return cls(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))

    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self.session.run(None, self.taken(tokens))
        return found
