"""Cuts a model's word embeddings, and what else has an entry per token, to some rows."""

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from trainflat.anatomy.shrunk import built_with
from trainflat.core.errors import InputError
from trainflat.models.base import positions_from_padding
from trainflat.models.quiet import quiet_loading

_IDS = re.compile(r"_token_ids?$|^(pad|unk|bos|eos|mask)_index$")  # the latter are XLM's


def word_rows(model: PreTrainedModel) -> int:
    """Counts the rows of a model's word embeddings.

    Raises:
        InputError: it has no table of them (CANINE hashes characters), or its config gives another size.
    """
    try:
        words = model.get_input_embeddings()
    except NotImplementedError:
        words = None
    rows = getattr(words, "num_embeddings", None)
    if not isinstance(words, nn.Embedding) or rows != getattr(model.config, "vocab_size", None):
        raise InputError(
            f"{type(model).__name__} has no table of word embeddings of the size in its config, so its vocabulary "
            "cannot be trimmed. Keep this vocabulary whole."
        )
    return int(words.num_embeddings)


def used_rows(model: PreTrainedModel, rows: int) -> set[int]:
    """Returns the rows that a model itself refers to, in its config or by where its positions begin."""
    named = {number for config in _configs(model) for _, number in _ids(config)}
    table = positions_from_padding(model)
    if table is not None:
        # RoBERTa counts positions from its padding id + 1 on: another id would read each word at another position.
        # With all rows before it, the padding id keeps its number.
        named |= set(range(int(table.padding_idx or 0) + 1))
    return {number for number in named if number < rows}


def cut_tables(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Returns a copy of a model with the rows ``kept`` of its tables, in this order; the given one is not changed.

    Word embeddings, and in a masked language model the decoder and its bias: every tensor whose shape follows from the
    size of the vocabulary. Ids in its config become the new ones.

    Raises:
        InputError: the model has other tensors than its config describes, as an int8 one.
    """
    places = {old: new for new, old in enumerate(kept)}
    config = _renumbered(model.config, places)
    config.vocab_size = len(kept)
    state = dict(_cut(model, config, torch.tensor(kept)))
    with quiet_loading():
        found, info = type(model).from_pretrained(
            None, config=config, state_dict=state, dtype=model.dtype, output_loading_info=True, **built_with(model)
        )
    _refuse(model, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]])
    if getattr(model, "generation_config", None) is not None:
        found.generation_config = _renumbered(model.generation_config, places)
    small: PreTrainedModel = found.to(model.device).train(model.training)
    return small


def _cut(model: PreTrainedModel, config: PreTrainedConfig, kept: Tensor) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"), quiet_loading():
        empty = type(model)(config, **built_with(model))
        expected = {name: tensor.shape for name, tensor in empty.state_dict().items()}
    state = model.state_dict()
    _refuse(model, expected.keys() ^ state.keys())
    for name, tensor in state.items():
        new = expected[name]
        axes = [i for i in range(tensor.dim()) if i >= len(new) or tensor.shape[i] != new[i]]
        if tensor.dim() != len(new) or len(axes) > 1 or any(new[i] != len(kept) for i in axes):
            _refuse(model, [name])
        yield name, tensor.index_select(axes[0], kept.to(tensor.device)) if axes else tensor


def _refuse(model: PreTrainedModel, misfits: Collection[Any]) -> None:
    if misfits:
        raise InputError(
            f"{type(model).__name__} has tensors that its config does not describe ({min(map(str, misfits))}), so its "
            "vocabulary cannot be trimmed. Trim it before it is quantized or given new modules."
        )


def _renumbered(config: Any, places: Mapping[int, int]) -> Any:
    found = copy.deepcopy(config)
    for key, value in list(vars(found).items()):
        if _IDS.search(key) and value is not None:
            new = [places.get(one, one) for one in _listed(value)]
            setattr(found, key, new if isinstance(value, list) else new[0])
    return found


def _configs(model: PreTrainedModel) -> list[Any]:
    return [one for one in (model.config, getattr(model, "generation_config", None)) if one is not None]


def _ids(config: Any) -> Iterator[tuple[str, int]]:
    for key, value in vars(config).items():
        if _IDS.search(key) and value is not None:
            yield from ((key, one) for one in _listed(value) if isinstance(one, int) and one >= 0)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
