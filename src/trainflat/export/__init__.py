"""Export formats: files that other programs load."""

from trainflat.core.registry import Registry
from trainflat.export.base import Exporter, Source, copy_tokenizer, new_folder
from trainflat.export.int8 import Int8
from trainflat.export.loading import open_export
from trainflat.export.onnx import Onnx
from trainflat.export.onnx_int8 import OnnxInt8
from trainflat.export.openvino import OpenVino
from trainflat.export.openvino_int8 import OpenVinoInt8
from trainflat.export.runner import Runner
from trainflat.export.sparse import Sparse, save_sparse
from trainflat.export.torch_export import TorchExport

EXPORTERS: Registry[Exporter] = Registry(
    "export format",
    sparse=Sparse,
    int8=Int8,
    torch_export=TorchExport,
    onnx=Onnx,
    onnx_int8=OnnxInt8,
    openvino=OpenVino,
    openvino_int8=OpenVinoInt8,
)

__all__ = [
    "EXPORTERS",
    "Exporter",
    "Runner",
    "Source",
    "copy_tokenizer",
    "new_folder",
    "open_export",
    "save_sparse",
]
