"""Refuses, by name, what cannot be taken out of a model exactly."""

from typing import Any

from torch import nn

from trainflat.anatomy import Anatomy, Layout
from trainflat.anatomy.shrunk import dense_class
from trainflat.core.errors import InputError
from trainflat.pruning.structured.kept import Kept

_ONE_READER = ("Model", "Classification", "QuestionAnswering", "MultipleChoice", "MaskedLM", "NextSentencePrediction")


def check(model: Any, layout: Layout, anatomy: Anatomy, kept: Kept) -> None:
    """Checks that a model can be shrunk to what is kept.

    Raises:
        InputError: it cannot; says why.
    """
    _check_model(model, layout, anatomy)
    expected, found = ({name: tuple(t.shape) for name, t in one.tensors().items()} for one in (Kept.all(anatomy), kept))
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            raise InputError(
                f"what is kept is of another model: {name} is {found.get(name)}, this one's {expected.get(name)}."
            )
    if not all(t.isfinite().all() for t in kept.tensors().values()):
        raise InputError("a factor of what is kept is not finite.")
    if layout.rotary and any((one.query_key != 1).any() for one in kept.layers):
        raise InputError(f"{anatomy.family}'s query-key dimensions cannot be dropped or scaled: its positions rotate.")
    _check_hidden(model, layout, anatomy, kept)
    _check_vocabulary(model, layout, anatomy, kept)


def _check_model(model: Any, layout: Layout, anatomy: Anatomy) -> None:
    kind = type(model).__name__
    if not dense_class(type(model)).__module__.startswith("transformers."):
        raise InputError(f"{kind} is no class of transformers, whose forward pass is known. Give the model inside it.")
    modules = dict(model.named_modules())
    strange = next((n for n in anatomy.matrices() if type(modules.get(n.removesuffix(".weight"))) is not nn.Linear), "")
    if strange:
        raise InputError(f"{strange} of {kind} is no plain linear layer. Shrink a model before it is quantized.")
    if layout.shared and len(anatomy.layers) > 1:
        raise InputError(f"this {anatomy.family} has several sets of layers; known is one that all layers share.")
    # transformers reads these from per_layer_config as its own class has it, not as plain data.
    positions = getattr(model.config, "rope_parameters", None) or {}
    scaled = next((one["rope_type"] for one in positions.values() if one and one["rope_type"] != "default"), None)
    if layout.rotary and scaled:
        raise InputError(f"{kind} has rotary positions of the type {scaled!r}; models with 'default' can be shrunk.")
    if getattr(model.config, "is_decoder", False):
        raise InputError(f"{kind} is a decoder. Give an encoder.")


def _check_hidden(model: Any, layout: Layout, anatomy: Anatomy, kept: Kept) -> None:
    hidden = kept.hidden
    if (hidden == 1).all():
        return
    kind, family = type(model).__name__, anatomy.family
    if not hidden.any():
        raise InputError("no hidden dimension is kept; keep at least one.")
    paths = {name for name, _ in model.base_model.named_modules()}
    reason = next((why for path, why in layout.mixers.items() if path in paths), None)
    if reason:
        raise InputError(f"hidden dimensions of this {family} cannot be dropped: {reason}.")
    decoder = model.get_output_embeddings()
    tables = {one.tensor for one in anatomy.hidden_producers}
    if decoder is not None and decoder.weight is model.get_input_embeddings().weight and anatomy.words in tables:
        raise InputError(
            f"hidden dimensions of {kind} cannot be dropped: its decoder is tied to the word embeddings, whose width "
            "it needs. Drop the head, or untie it."
        )
    if not kind.endswith(_ONE_READER) or (model is not model.base_model and not _head_reads(anatomy, model)):
        raise InputError(f"hidden dimensions of {kind} cannot be dropped: what its head reads is not known.")


def _head_reads(anatomy: Anatomy, model: Any) -> bool:
    """Returns whether a matrix outside the layers is known to read the hidden states."""
    inside = {id(p) for p in model.base_model.parameters()}
    pooler = {one.tensor for one in anatomy.hidden_consumers} & set(anatomy.other)
    named = dict(model.named_parameters(remove_duplicate=False))
    return bool(pooler) or any(id(named[one.tensor]) not in inside for one in anatomy.hidden_consumers)


def _check_vocabulary(model: Any, layout: Layout, anatomy: Anatomy, kept: Kept) -> None:
    rows = kept.vocabulary
    if (rows == 1).all():
        return
    if not rows.any():
        raise InputError("no word is kept; keep at least one.")
    if model.get_output_embeddings() is not None and not ((rows == 0) | (rows == 1)).all():
        raise InputError(f"words of {type(model).__name__} can be dropped, not scaled: its decoder has a row for each.")
    padding = model.config.pad_token_id
    if layout.positions_from_pad and padding is not None and not rows[: padding + 1].all():
        raise InputError(
            f"{anatomy.family} counts positions from its padding token's number, {padding}: keep the words up to it."
        )
