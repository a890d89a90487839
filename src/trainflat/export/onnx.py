"""ONNX: a graph that onnxruntime, OpenVINO and others run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainflat.export.base import Exporter, Source
from trainflat.export.graph import Logits, dynamic_shapes, example, traceable
from trainflat.export.runner import Runner


class Onnx(Exporter):
    """A graph for onnxruntime and others, with free batch and length."""

    file = "model.onnx"
    extra, packages = "onnx", ("onnx", "onnxscript", "onnxruntime")
    tolerance = 1e-4

    def write(self, source: Source, folder: Path) -> None:
        """One file, ``model.onnx``, with all weights in it."""
        import onnx

        onnx.save(anonymous(traced(source)), folder / self.file)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Runner:
        """The graph, run by onnxruntime."""
        return _Session(folder / cls.file, threads or torch.get_num_threads())


class _Session(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        super().__init__([one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()])
        self.session = session

    def run(self, arrays: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self.session.run(list(self.outputs), dict(arrays))
        return found


def traced(source: Source) -> Any:
    """The model as an ONNX graph, each node with the names of the modules that it stands in.

    Raises:
        InputError: the model cannot be traced.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision, which no encoder needs
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
    """The same graph without what the exporter wrote about each node: source lines, with paths of this machine."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
    return model
