"""Tries model and tokenizer together on a padded batch of real rows, before anything is trained, measured or exported.

What fails there would fail later too, but after minutes, inside a library, and in words that name neither of the two.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError, one_line
from trainflat.core.formatting import plural
from trainflat.models.base import Encoder, keep_layers, max_positions
from trainflat.models.quiet import quiet_loading
from trainflat.objective.state_guard import preserve_state
from trainflat.tasks.base import ANSWERS
from trainflat.tasks.encoding import unzip
from trainflat.tasks.stdlib_docs import sentences_of

TYPES = "token_type_ids"
_LENGTHS = (64, 128, 512)  # at which a model that wants one length is tried
_PROBED = 32  # tokens of the longer row where no row of the task is at hand


def fit_inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Has the tokenizer leave out token types where the model knows one or none; that is exact, for it adds the same
    vector to every token.

    Returns:
        A note for users; "" where nothing was changed.
    """
    names = list(tokenizer.model_input_names)
    table = _table(model, "token_type_embeddings")
    taken = inspect.signature(model.forward).parameters
    nowhere = TYPES not in taken and all(p.kind is not p.VAR_KEYWORD for p in taken.values())
    if TYPES not in names or not (nowhere or (table is not None and len(table) == 1)):
        return ""
    tokenizer.model_input_names = [name for name in names if name != TYPES]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # which is what is saved
    return f"{type(model).__name__} tells no first from second text, so the tokenizer's token types are left out."


def meet(encoder: Encoder, rows: Sequence[Mapping[str, Any]] = (), *, learns: bool = False) -> None:
    """Runs one forward pass over the shortest, the longest and the first row, padded to one batch; changes nothing.

    In place of a model on torch's meta device its first layer passes, with weights drawn at random.

    Args:
        encoder: Model and tokenizer.
        rows: As a task encoded them; none: sentences of Python's library.
        learns: A backward pass follows, if the rows have answers.

    Raises:
        InputError: the pass fails, or gives what is no number; names model, tokenizer and the likely reason.
    """
    if encoder.model.device.type == "meta":
        encoder = replace(encoder, model=_first_layer(encoder.model))
    batch = _batch(encoder, rows)
    answered = learns and any(name in ANSWERS for name in batch)
    given = batch if answered else {name: value for name, value in batch.items() if name not in ANSWERS}
    with preserve_state(encoder.model, []), quiet_loading():
        reason = _misfit(encoder.model, batch) or _failure(encoder.model, given, backward=answered)
        tokens = int(batch["attention_mask"][0].sum()) if "attention_mask" in batch else 0
        if tokens and not reason:  # the shortest row again, alone: Funnel halves lengths, and cannot go on below some
            at = slice(-tokens, None) if encoder.tokenizer.padding_side == "left" else slice(tokens)
            short = {name: v[:1, at] if v.dim() > 1 else v[:1] for name, v in given.items()}
            reason = _failure(encoder.model, short, backward=answered)
        if reason:
            reason += _one_length(encoder, batch)
    if reason:
        raise InputError(
            f"model {encoder.name!r} ({type(encoder.model).__name__}) cannot use what its tokenizer "
            f"({type(encoder.tokenizer).__name__}) makes of text: {reason}. Put the tokenizer that it was trained "
            "with beside it, or choose another model."
        )


def _first_layer(model: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    with suppress(InputError, AttributeError):  # Funnel and Perceiver have no plain stack, and stay whole
        keep_layers(config, 1, type(model).__name__)
    with torch.random.fork_rng(devices=[]):
        return type(model)(config)


def _batch(encoder: Encoder, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    rows = rows or _probe(encoder)
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    chosen = [dict(rows[i]) for i in (by_length[0], by_length[-1], 0)]
    return dict(DataCollatorWithPadding(encoder.tokenizer)(chosen))


def _probe(encoder: Encoder) -> list[dict[str, Any]]:
    short, *others = sentences_of("statistics")
    firsts, seconds = [short, short], [short, " ".join(others)]
    length = min(_PROBED, encoder.max_length)
    found = encoder.tokenizer(firsts, seconds, truncation=True, max_length=length)
    return list(unzip({name: found[name] for name in encoder.tokenizer.model_input_names if name in found}))


def _misfit(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> str:
    """Says which numbers of a batch do not fit the model's tables; "" if all do."""
    types, words, positions = _table(model, "token_type_embeddings"), _words(model), max_positions(model)
    length = batch["input_ids"].shape[1]
    if TYPES in batch and types is not None and int(batch[TYPES].max()) >= len(types):
        return f"token types go up to {int(batch[TYPES].max())}, and the model knows {len(types)} of them"
    if words is not None and int(batch["input_ids"].max()) >= len(words):
        return f"ids go up to {int(batch['input_ids'].max())}, and there are {len(words)} embeddings"
    if positions is not None and length > positions:
        return f"a row has {plural(length, 'token')}, and there are {positions} positions"
    return ""


def _failure(model: PreTrainedModel, batch: Mapping[str, Tensor], backward: bool) -> str:
    """Says how a pass fails; "" if it gives numbers."""
    shape = "x".join(map(str, batch["input_ids"].shape))
    model.train(backward)  # Reformer refuses a backward pass in evaluation mode
    try:
        found = model(**{name: value.to(model.device) for name, value in batch.items()})
        if backward:
            trained = [p for p in model.parameters() if p.requires_grad]
            torch.autograd.grad(found.loss, trained, allow_unused=True)
    except Exception as error:  # of a model of any kind
        return f"a batch of {shape} tokens ends in {type(error).__name__}: {one_line(error, 120)}"
    finally:
        model.eval()
    answers = [value for name, value in found.items() if "logits" in name]
    return "" if all(bool(v.isfinite().all()) for v in answers) else f"a batch of {shape} tokens gives no numbers (NaN)"


def _one_length(encoder: Encoder, batch: Mapping[str, Tensor]) -> str:
    """Says whether the model reads the same rows when they are padded to some round length."""
    question = {name: value for name, value in batch.items() if name in encoder.tokenizer.model_input_names}
    for length in sorted(
        {n for n in (*_LENGTHS, encoder.max_length) if batch["input_ids"].shape[1] < n <= _LENGTHS[-1]}
    ):
        padded = encoder.tokenizer.pad(question, padding="max_length", max_length=length, return_tensors="pt")
        if not _failure(encoder.model, dict(padded), backward=False):
            return f" (it reads rows of {plural(length, 'token')}, but not of every length)"
    return ""


def _table(model: PreTrainedModel, name: str) -> Tensor | None:
    """Finds the first table of a name; I-BERT's is a module of its own with a weight."""
    found = (module.weight for path, module in model.named_modules() if path.endswith(name))
    return next((weight for weight in found if isinstance(weight, Tensor)), None)


def _words(model: PreTrainedModel) -> Tensor | None:
    try:
        weight: Any = getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:  # CANINE hashes characters, so any id will do
        return None
    return weight if isinstance(weight, Tensor) else None
