"""ONNX: a graph that onnxruntime, OpenVINO and others run."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable

FILE = "model.onnx"


class Onnx(Exporter):
    """A graph for onnxruntime and others, with free batch and length."""

    extra, packages = "onnx", ("onnx", "onnxscript", "onnxruntime")
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """One file, ``model.onnx``, with all weights in it."""
        import onnx

        path = folder / FILE
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision, which no encoder needs
        with traceable(source, "onnx"):
            torch.onnx.export(
                Logits(source),
                (),
                path,
                kwargs=example(source),
                input_names=list(source.inputs),
                output_names=list(source.outputs),
                dynamic_shapes=dynamic_shapes(source),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        graph = onnx.load(path)
        del graph.graph.value_info[:]  # shapes of the example, over which quantize_dynamic of onnxruntime stumbles
        onnx.save(graph, path)

    def read(self, source: Source, folder: Path) -> nn.Module:
        """The graph, run by onnxruntime on as many threads as torch has."""
        return _Session(folder / FILE, source)


class _Session(nn.Module):
    def __init__(self, path: Path, source: Source) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = source.inputs, source.outputs

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        found = self.session.run(list(self.outputs), {name: batch[name].numpy() for name in self.inputs})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}
