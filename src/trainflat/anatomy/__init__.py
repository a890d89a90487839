"""Describes what a model is made of: its layers, and for each unit that can be dropped its slices of tensors."""

from collections.abc import Iterable

from torch import nn

from trainflat.anatomy.base import KINDS, Anatomy, Attention, FeedForward, Layer, Linear, Slice, Unit
from trainflat.anatomy.families import FAMILIES, layout_of, model_type
from trainflat.anatomy.layout import Layout, Part


def anatomy_of(model: nn.Module) -> Anatomy:
    """Returns the anatomy of a transformers model, with the current sizes of its tensors.

    Raises:
        InputError: no layout of ``FAMILIES`` has the model's architecture.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=9))
        >>> heads = anatomy_of(model).units("head")
        >>> heads[1].consumers  # columns of the attention's output matrix
        (Slice(tensor='encoder.layer.0.attention.output.dense.weight', axis=1, start=4, stop=8),)
    """
    return layout_of(model).read(model)


def matrix_kinds(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[int | None, str]]:
    """Returns the layer number and the kind of each named matrix; guesses from the name where no anatomy has it."""
    # Reports label matrices of any model; one of an unknown architecture still runs, unstructured.
    places = anatomy_of(model).matrices() if model_type(model) in FAMILIES else {}
    return {name: places.get(name) or kind_by_name(name) for name in names}


def kind_by_name(name: str) -> tuple[int | None, str]:
    """Guesses the layer number and the kind of a matrix from its name: the first number in it, and the rest after it.

    Example:
        >>> kind_by_name("blocks.1.mixer.weight")
        (1, 'mixer')
    """
    parts = name.removesuffix(".weight").split(".")
    if "pooler" in parts:
        return None, "pooler"
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is None:
        return None, parts[-1]
    return int(parts[number]), ".".join(parts[number + 1 :]) or "weight"


__all__ = [
    "FAMILIES",
    "KINDS",
    "Anatomy",
    "Attention",
    "FeedForward",
    "Layer",
    "Layout",
    "Linear",
    "Part",
    "Slice",
    "Unit",
    "anatomy_of",
    "kind_by_name",
    "layout_of",
    "matrix_kinds",
    "model_type",
]
