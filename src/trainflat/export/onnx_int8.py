"""ONNX with int8 weights and activations that onnxruntime rounds as they come."""

import ast
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, Literal

from trainflat.export.base import Source
from trainflat.export.onnx import Onnx, anonymous, traced

_SCOPES = "pkg.torch.onnx.name_scopes"  # of a node: the modules that it stands in, outermost first
_MODEL = "model."  # what `Logits` calls the model


class OnnxInt8(Onnx):
    """ONNX with int8 matrix products for onnxruntime: a step per output channel, activations rounded per batch.

    Args:
        embeddings: Also round lookup tables, one step per table.
        head: Also round the linear layers outside the encoder.
        bits: Of the weights; 7 where the file shall run on x86 processors without VNNI instructions, whose sums of two
            products would overflow.
    """

    tolerance = inf

    def __init__(self, embeddings: bool = False, head: bool = False, bits: Literal[7, 8] = 8) -> None:
        self.embeddings, self.head, self.bits = embeddings, head, bits

    def write(self, source: Source, folder: Path) -> None:
        """One file, ``model.onnx``."""
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata

        model = traced(source)
        left = [] if self.head else list(_outside(model, source))
        add_pre_process_metadata(model)  # torch has simplified it; unmarked, onnxruntime logs that somebody should
        quantize_dynamic(
            anonymous(model),
            folder / self.file,
            op_types_to_quantize=["MatMul", "Gather"] if self.embeddings else ["MatMul"],
            nodes_to_exclude=left,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=self.bits == 7,
        )


def _outside(model: Any, source: Source) -> Iterator[str]:
    """Names of the matrix products outside the encoder, also those that they have once onnxruntime rewrote them."""
    encoder = _MODEL + source.model.base_model_prefix
    for node in model.graph.node:
        found = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "[]")
        if node.op_type in ("MatMul", "Gemm") and encoder not in ast.literal_eval(found):
            yield from (node.name, f"{node.name}_MatMul")
