"""Compression: int8 in place of float32."""

from trainflat.quantization.arithmetic import has_integer_kernel, quantize_rows, without_integer_kernel
from trainflat.quantization.dynamic import METHOD, Layout, check_loaded, layers_to_round, prepare, quantize_dynamic
from trainflat.quantization.modules import Activations, Int8Embedding, Int8Linear, Int8Module

__all__ = [
    "METHOD",
    "Activations",
    "Int8Embedding",
    "Int8Linear",
    "Int8Module",
    "Layout",
    "check_loaded",
    "has_integer_kernel",
    "layers_to_round",
    "prepare",
    "quantize_dynamic",
    "quantize_rows",
    "without_integer_kernel",
]
