"""Lists the engines that run exported files; each imports its own library only, when it opens a file."""

from trainflat.core.registry import Registry
from trainflat.engines.base import Engine, Tokens
from trainflat.engines.onnx import OnnxRuntime
from trainflat.engines.openvino import OpenVinoRuntime
from trainflat.engines.program import TorchProgram

ENGINES: Registry[Engine] = Registry("engine", torch=TorchProgram, onnx=OnnxRuntime, openvino=OpenVinoRuntime)

__all__ = ["ENGINES", "Engine", "Tokens"]
