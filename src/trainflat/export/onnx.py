"""Exports to ONNX, which onnxruntime, OpenVINO and others run."""

import logging
from pathlib import Path
from typing import Any

import torch

from trainflat.engines.onnx import OnnxRuntime
from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable
from trainflat.export.runner import Runner


class Onnx(Exporter):
    """A graph for onnxruntime and others, with free batch and length."""

    file = "model.onnx"
    extra, packages = "onnx", ("onnx", "onnxscript", "onnxruntime")
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """Writes one file, ``model.onnx``, with all weights in it."""
        import onnx

        onnx.save(anonymous(traced(source)), folder / self.file)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        return Runner(OnnxRuntime.open(folder / cls.file, threads or torch.get_num_threads()))


def traced(source: Source) -> Any:
    """Traces a model as an ONNX graph, each node with the names of the modules that it stands in.

    Raises:
        InputError: the model cannot be traced.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which no encoder needs
    with traceable(source, "onnx"):
        program = torch.onnx.export(
            Logits(source),
            (),
            kwargs=example(source),
            input_names=list(source.inputs),
            output_names=list(source.outputs),
            dynamic_shapes=dynamic_shapes(source),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        model: Any = program.model_proto
    del model.graph.value_info[:]  # shapes of the example, over which quantize_dynamic of onnxruntime stumbles
    return model


def anonymous(model: Any) -> Any:
    """Removes what the exporter wrote about each node: source lines, with paths of this machine."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
    return model
