"""Encodes text as token ids."""

from collections.abc import Iterator, Sequence
from typing import Any

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.base import EncodedSplit, Tokenizer

BATCH = 1000  # texts per call: enough for the tokenizer's threads, few enough that its Encoding objects stay small
NO_LIMIT = 1_000_000  # transformers gives tokenizers without a limit a model_max_length of 10^30


def check_length(tokenizer: Tokenizer, max_length: int, *, pair: bool) -> int:
    """Returns the number of tokens left for text beside the special tokens.

    Raises:
        InputError: ``max_length`` exceeds the tokenizer's limit, or the special tokens fill it.
    """
    limit = tokenizer.model_max_length
    if max_length > limit and limit < NO_LIMIT:
        raise InputError(
            f"max_length is {max_length}, but this model takes at most {plural(limit, 'token')}. Set {limit} or less."
        )
    special = tokenizer.num_special_tokens_to_add(pair=pair)
    if max_length < special + (2 if pair else 1):
        raise InputError(
            f"max_length is {max_length}, and {special} of these are special tokens: no room for text. Set more."
        )
    return max_length - special


def encode_texts(tokenizer: Tokenizer, texts: Sequence[Sequence[str]], max_length: int) -> Iterator[dict[str, Any]]:
    """Encodes one text or two per row, truncated to ``max_length`` tokens (the longer text first), not padded."""
    check_length(tokenizer, max_length, pair=len(texts) == 2)
    for start in range(0, len(texts[0]), BATCH):
        columns = [list(column[start : start + BATCH]) for column in texts]
        # "longest_first" is the only truncation strategy that works for a single text and for a pair.
        batch = tokenizer(*columns, truncation="longest_first", max_length=max_length, padding=False)
        yield from unzip({key: batch[key] for key in tokenizer.model_input_names if key in batch})


def unzip(columns: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Converts columns to rows."""
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def make_split(
    name: str, rows: Sequence[dict[str, Any]], extras: dict[str, list[Any]] | None = None, *, by_length: bool
) -> EncodedSplit:
    """Makes a split, in the order given or stably sorted by length; ``extras`` are sorted with the rows."""
    lengths = [len(row["input_ids"]) for row in rows]
    order = sorted(range(len(rows)), key=lengths.__getitem__) if by_length else range(len(rows))
    moved = {key: [values[i] for i in order] for key, values in (extras or {}).items()}
    return EncodedSplit(name, [rows[i] for i in order], [lengths[i] for i in order], moved, list(order))
