"""Compression: int8 in place of float32, after training or learned by it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.core.registry import Registry
from trainflat.quantization.arithmetic import has_integer_kernel, quantize_rows, without_integer_kernel
from trainflat.quantization.dynamic import layers_to_round, quantize_dynamic
from trainflat.quantization.layout import METHOD, Layout, check_loaded, prepare
from trainflat.quantization.modules import Activations, Int8Embedding, Int8Linear, Int8Module
from trainflat.quantization.q8bert import Q8BERT

QUANTIZERS: Registry[Q8BERT] = Registry("quantization", given={"model"}, q8bert=Q8BERT)


def make_quantizer(name: str, model: nn.Module, /, **options: Any) -> Q8BERT:
    """Quantization-aware training of a model, from a recipe's words; not attached yet.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a value that cannot be used.

    Example:
        >>> make_quantizer("q8bert", nn.Linear(2, 2), decay=0.99).decay
        0.99
    """
    return QUANTIZERS.make(name, model, **options)


def complete_quantization(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a member, those not given with their defaults; raises what :func:`make_quantizer` raises.

    Example:
        >>> complete_quantization("q8bert", {"weights": "channel"})["decay"]
        0.9999
    """
    return QUANTIZERS.complete(name, nn.Module(), options)


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
    "complete_quantization",
    "has_integer_kernel",
    "layers_to_round",
    "make_quantizer",
    "prepare",
    "quantize_dynamic",
    "quantize_rows",
    "without_integer_kernel",
]
