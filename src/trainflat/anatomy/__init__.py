"""Describes what a model is made of: its layers, and for each unit that can be dropped its slices of tensors."""

from collections.abc import Iterable

from torch import nn

from trainflat.anatomy.albert import ALBERT
from trainflat.anatomy.base import KINDS, Anatomy, Attention, FeedForward, Layer, Linear, Slice, Unit
from trainflat.anatomy.bert import BERT, ELECTRA, ROBERTA
from trainflat.anatomy.deberta import DEBERTA
from trainflat.anatomy.distilbert import DISTILBERT
from trainflat.anatomy.layout import Layout, Part
from trainflat.anatomy.modernbert import MODERNBERT
from trainflat.anatomy.mpnet import MPNET
from trainflat.anatomy.vit import VIT
from trainflat.core.errors import InputError

FAMILIES: dict[str, Layout] = {
    "albert": ALBERT,
    "bert": BERT,
    "camembert": ROBERTA,
    "deberta-v2": DEBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "roberta": ROBERTA,
    "vit": VIT,
    "xlm-roberta": ROBERTA,
}
"""Layout of each known architecture, by ``config.model_type``. A new architecture is one file and one line here."""


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
    kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    if kind not in FAMILIES:
        raise InputError(
            f"the structure of {kind!r} is not known, so only its single weights can be pruned. Known: "
            f"{', '.join(FAMILIES)}. To add it, write a Layout with the names of its parts in trainflat/anatomy."
        )
    return FAMILIES[kind].read(model)


def matrix_kinds(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[int | None, str]]:
    """Returns the layer number and the kind of each named matrix; guesses from the name where no anatomy has it."""
    # Reports label matrices of any model; one of an unknown architecture still runs, unstructured.
    known = getattr(getattr(model, "config", None), "model_type", None) in FAMILIES
    places = anatomy_of(model).matrices() if known else {}
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
    "matrix_kinds",
]
