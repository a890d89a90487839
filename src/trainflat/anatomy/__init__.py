"""What a model is made of: its layers, and for each unit that can be dropped the slices of tensors that go with it."""

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
"""The layout of each known architecture, by the ``model_type`` of its config. A new one is a file and a line here."""


def anatomy_of(model: nn.Module) -> Anatomy:
    """Returns what a transformers model is made of, with the sizes that its tensors have now.

    Raises:
        InputError: the architecture is not known.

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
            f"the structure of {kind!r} is not known, so only single weights of it can be pruned. Known: "
            f"{', '.join(FAMILIES)}. Another one is a file in trainflat/anatomy with the names of its parts."
        )
    return FAMILIES[kind].read(model)


def matrix_kinds(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[int | None, str]]:
    """Returns the layer number and the kind of each named matrix; what no anatomy knows is read off its name."""
    known = getattr(getattr(model, "config", None), "model_type", None) in FAMILIES
    places = anatomy_of(model).matrices() if known else {}
    return {name: places.get(name) or kind_by_name(name) for name in names}


def kind_by_name(name: str) -> tuple[int | None, str]:
    """Returns a layer number and a kind for a matrix of an unknown architecture, from its name alone.

    The first number in the path counts as the layer, and what follows it is the kind.

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
