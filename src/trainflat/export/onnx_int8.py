"""Exports to ONNX with int8 weights and activations that onnxruntime rounds as they come."""

import ast
from math import inf
from pathlib import Path
from typing import Any, Literal

from trainflat.core.errors import InputError
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
        """Writes one file, ``model.onnx``."""
        from onnxruntime.quantization import QuantType, quant_utils, quantize_dynamic

        model = traced(source)
        left = [] if self.head else _outside(model, source)
        if hasattr(quant_utils, "add_pre_process_metadata"):  # unmarked, onnxruntime logs that it shall be simplified
            quant_utils.add_pre_process_metadata(model)  # torch has simplified it
        quantize_dynamic(
            anonymous(model),
            folder / self.file,
            op_types_to_quantize=["MatMul", "Gather"] if self.embeddings else ["MatMul"],
            nodes_to_exclude=left,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=self.bits == 7,
        )


def _outside(model: Any, source: Source) -> list[str]:
    """Names the matrix products outside the encoder, also as they are called once onnxruntime rewrote them.

    Raises:
        InputError: all seem to be outside, as where torch has not noted the modules.
    """
    encoder = _MODEL + source.model.base_model_prefix
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    outside = [node.name for node in products if encoder not in _scopes(node)]
    if len(outside) == len(products):
        raise InputError(
            f"the graph of {type(source.model).__name__} does not show which products are its head's. Set head=true."
        )
    return [*outside, *(f"{name}_MatMul" for name in outside)]


def _scopes(node: Any) -> list[str]:
    found: list[str] = ast.literal_eval(next((one.value for one in node.metadata_props if one.key == _SCOPES), "[]"))
    return found
