"""Describes a pre-trained encoder under a task head: its sizes, its outputs, its entry in a record."""

import hashlib
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.records.run import ModelInfo


@dataclass(frozen=True)
class Encoder:
    """Holds a model with its head, in float32, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str  # as the recipe says
    max_length: int  # tokens per row that the model has positions for
    note: str = ""  # what was done so that model, tokenizer and the task's classes fit


def positions_from_padding(model: PreTrainedModel) -> nn.Embedding | None:
    """Finds the table of positions that are counted from the padding id + 1 on: RoBERTa's and its kin's.

    So the first rows of the table are never used, and with another padding id every word is at another position.
    """
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    return next((table for table in tables if getattr(table, "padding_idx", None) is not None), None)


def max_positions(model: PreTrainedModel) -> int | None:
    """Counts the tokens per row that a model has positions for; None if its positions have no end."""
    table = positions_from_padding(model)
    if table is not None:
        return len(table.weight) - int(table.padding_idx or 0) - 1
    positions = getattr(model.config, "max_position_embeddings", None)
    return None if positions is None or positions <= 0 else int(positions)


def keep_layers(config: PreTrainedConfig, layers: int, name: str) -> None:
    """Makes ``config`` describe only the first ``layers`` layers, whatever the architecture calls their number.

    Raises:
        InputError: there are not as many, or the architecture has no plain stack of layers.
    """
    available = config.num_hidden_layers  # transformers maps this name to the architecture's own (n_layers, ...)
    if not 1 <= layers <= available:
        raise InputError(
            f"layers is how many of the {plural(available, 'layer')} of model {name!r} to keep, from 1 on, got "
            f"{layers}."
        )
    for entries in ("layer_types", "attention_window"):  # one per layer, in ModernBERT and in Longformer
        if isinstance(getattr(config, entries, None), list):
            setattr(config, entries, getattr(config, entries)[:layers])
    own = getattr(config, "per_layer_config", None)  # of a shrunk model
    if isinstance(own, dict):
        config.per_layer_config = {key: widths for key, widths in own.items() if int(key) < layers}
    try:
        config.num_hidden_layers = layers
    except NotImplementedError as error:  # Funnel: blocks of several layers
        raise InputError(
            f"model {name!r} ({config.model_type}) cannot be cut to {plural(layers, 'layer')}. Leave `layers` out."
        ) from error


def vocabulary_size(model: PreTrainedModel) -> int:
    """Returns a bound below which all ids can be read; CANINE hashes the numbers of characters and has none."""
    return int(getattr(model.config, "vocab_size", 1024))


def output_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names the outputs of a model with a task's head: ``logits`` of rows, or of where spans start and end.

    Raises:
        InputError: it has no such head, so that its answers cannot be compared with another's.
    """
    kind = type(model).__name__
    if kind.endswith("ForQuestionAnswering"):
        return "start_logits", "end_logits"
    if kind.endswith("ForSequenceClassification"):
        return ("logits",)
    raise InputError(f"{kind} has no head for rows or spans. Give a model that was fine-tuned on a task.")


def weights_sha256(model: nn.Module) -> str:
    """Hashes names, types, shapes and bytes of the state with SHA-256, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unwrapped(model).state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def model_info(encoder: Encoder) -> ModelInfo:
    """Describes a model for the record. Call it before training: it hashes the starting weights."""
    return ModelInfo(
        name=encoder.name,
        architecture=type(encoder.model).__name__,
        layers=encoder.model.config.num_hidden_layers,
        parameters=sum(p.numel() for p in encoder.model.parameters()),
        weights_sha256=weights_sha256(encoder.model),
    )
