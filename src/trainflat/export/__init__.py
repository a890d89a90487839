"""Files that others load."""

from trainflat.export.base import Exporter, Source
from trainflat.export.folders import copy_tokenizer, new_folder
from trainflat.export.onnx import Onnx
from trainflat.export.sparse import Sparse, save_sparse
from trainflat.export.torch_export import TorchExport
from trainflat.registry import Registry

EXPORTERS: Registry[Exporter] = Registry("export format", sparse=Sparse, torch_export=TorchExport, onnx=Onnx)

__all__ = ["EXPORTERS", "Exporter", "Source", "copy_tokenizer", "new_folder", "save_sparse"]
