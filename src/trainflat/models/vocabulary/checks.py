"""Compares a model and tokenizer of a trimmed vocabulary with the whole ones."""

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import BatchEncoding

from trainflat.core.errors import InputError
from trainflat.models.base import max_positions
from trainflat.models.vocabulary.fast import FastTokenizer

_ROWS = 8  # texts in the batch that both models answer
_LENGTH = 128  # tokens of each at most


def check_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], before: Sequence[Sequence[int]], places: Mapping[int, int]
) -> list[int]:
    """Returns which texts have kept tokens alone, and checks that the new tokenizer reads those alike.

    Args:
        tokenizer: With the trimmed vocabulary.
        texts: To read.
        before: Their ids by the whole vocabulary.
        places: New ids by old ones.

    Raises:
        InputError: it does not. That is the work of its class in transformers, which makes of its files another
            tokenizer than they describe.
    """
    kept = [i for i, ids in enumerate(before) if all(one in places for one in ids)]
    after = FastTokenizer(tokenizer).encode([texts[i] for i in kept])
    for i, found in zip(kept, after, strict=True):
        if found != [places[one] for one in before[i]]:
            raise InputError(
                f"{type(tokenizer).__name__} reads {texts[i][:60]!r} in other tokens once its vocabulary is trimmed, "
                "though they were all kept. Keep this vocabulary whole."
            )
    return kept


def check_answers(
    whole: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    trimmed: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    texts: Sequence[str],
    kept: Sequence[int],
) -> None:
    """Checks that both models give the same numbers for some texts whose tokens are kept.

    Logits of a masked language model are compared for the kept tokens, up to rounding: a product with fewer columns
    may add in another order.

    Raises:
        InputError: they do not; names the output.
    """
    (model, tokenizer), (small, small_tokenizer) = whole, trimmed
    length = min(max_positions(model) or _LENGTH, tokenizer.model_max_length, _LENGTH)
    for rows in _batches(_sample(texts), tokenizer):
        options = {"padding": len(rows) > 1, "truncation": True, "max_length": length, "return_tensors": "pt"}
        before = _answers(model, tokenizer(rows, **options))
        after = _answers(small, small_tokenizer(rows, **options))
        for name, wanted in before.items():
            found, vocabulary = after[name], wanted.shape[-1] != after[name].shape[-1]
            same = torch.allclose(found, wanted[..., list(kept)]) if vocabulary else torch.equal(found, wanted)
            if not same:
                raise InputError(
                    f"{name} of {type(model).__name__} changes when its vocabulary is trimmed, so it uses ids in a way "
                    "that is not known here. Keep this vocabulary whole."
                )


def _sample(texts: Sequence[str]) -> list[str]:
    """Takes texts of all lengths, from the shortest to the longest."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    places = torch.linspace(0, max(len(texts) - 1, 0), min(_ROWS, len(texts))).round().int().tolist()
    return [texts[order[place]] for place in places]


def _batches(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    if not texts:
        return []
    return [texts] if tokenizer.pad_token is not None else [[text] for text in texts]


@torch.no_grad()
def _answers(model: PreTrainedModel, batch: BatchEncoding) -> dict[str, Tensor]:
    taken = inspect.signature(model.forward).parameters
    training = model.training
    try:
        found = model.eval()(**{name: value.to(model.device) for name, value in batch.items() if name in taken})
    finally:
        model.train(training)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
