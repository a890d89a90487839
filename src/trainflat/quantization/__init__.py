"""Compression: int8 in place of float32, after training or learned by it."""

from trainflat.core.registry import Registry
from trainflat.quantization.arithmetic import has_integer_kernel, quantize_rows, without_integer_kernel
from trainflat.quantization.dynamic import layers_to_round, quantize_dynamic
from trainflat.quantization.layout import METHOD, Layout, check_loaded, prepare
from trainflat.quantization.modules import Activations, Int8Embedding, Int8Linear, Int8Module
from trainflat.quantization.q8bert import Q8BERT

QUANTIZERS: Registry[Q8BERT] = Registry("quantization", given={"model"}, q8bert=Q8BERT)


__all__ = [
    "METHOD",
    "Q8BERT",
    "QUANTIZERS",
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
