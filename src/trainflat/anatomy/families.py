"""Lists the layout of each known architecture."""

from typing import Any

from torch import nn

from trainflat.anatomy.albert import ALBERT
from trainflat.anatomy.bert import BERT, ELECTRA, ROBERTA
from trainflat.anatomy.deberta import DEBERTA
from trainflat.anatomy.distilbert import DISTILBERT
from trainflat.anatomy.layout import Layout
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

SHRUNK = "trainflat-"
"""Stands before the ``model_type`` of a shrunk model whose layers differ in width."""


def model_type(model: nn.Module) -> str | None:
    """Returns a model's architecture as transformers names it, also of a shrunk model; None if it has no config."""
    kind: Any = getattr(getattr(model, "config", None), "model_type", None)
    return None if kind is None else str(kind).removeprefix(SHRUNK)


def layout_of(model: nn.Module) -> Layout:
    """Returns the layout of a model's architecture.

    Raises:
        InputError: it is in no line of ``FAMILIES``.
    """
    kind = model_type(model) or type(model).__name__
    if kind not in FAMILIES:
        raise InputError(
            f"the structure of {kind!r} is not known, so only its single weights can be pruned. Known: "
            f"{', '.join(FAMILIES)}. To add it, write a Layout with the names of its parts in trainflat/anatomy."
        )
    return FAMILIES[kind]
