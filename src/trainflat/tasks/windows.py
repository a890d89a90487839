"""Encodes questions and paragraphs as overlapping windows of tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.base import Tokenizer
from trainflat.tasks.encoding import BATCH, check_length

MAX_QUESTION = 64  # tokens; BERT's published code cuts longer questions


@dataclass(frozen=True)
class Window:
    """Holds a question with a part of its paragraph.

    Attributes:
        question: Index of the question in its split.
        row: What the model reads and the answer's ``start_positions`` and ``end_positions``.
        offsets: int32 [T, 2], characters of each token in the paragraph; -1 where a token is not of the paragraph.
    """

    question: int
    row: dict[str, Any]
    offsets: np.ndarray


def encode_windows(
    tokenizer: Tokenizer, columns: Mapping[str, Sequence[Any]], max_length: int, stride: int
) -> Iterator[Window]:
    """Encodes the windows of every question, in order.

    Args:
        columns: "question", "context", "answers" and "starts" (characters; the first answer is trained on).
        max_length: Tokens of a window.
        stride: Tokens that two windows share.

    Raises:
        InputError: a window has no room for more than the stride, or the tokenizer knows no offsets.
    """
    questions = _fitting_questions(tokenizer, columns["question"], max_length, stride)
    for first in range(0, len(questions), BATCH):
        part = slice(first, first + BATCH)
        batch = _tokenize(tokenizer, questions[part], columns["context"][part], max_length, stride)
        names = [name for name in tokenizer.model_input_names if name in batch]
        for i, sample in enumerate(batch["overflow_to_sample_mapping"]):
            question, offsets = first + sample, _context_offsets(batch, i)
            target = _positions(offsets, columns["starts"][question][0], columns["answers"][question][0])
            yield Window(question, {name: batch[name][i] for name in names} | target, offsets)


def _fitting_questions(tokenizer: Tokenizer, questions: Sequence[str], max_length: int, stride: int) -> list[str]:
    """Encodes the questions, and checks that each leaves room for windows that advance."""
    if not tokenizer.is_fast:
        raise InputError(
            "spans need a tokenizer with character offsets, and this model has none. Use a model with a fast one."
        )
    room = check_length(tokenizer, max_length, pair=True)
    cut, longest = _cut_questions(tokenizer, questions)
    if stride >= room - longest:  # the tokenizer would not raise but panic
        raise InputError(
            f"doc_stride is {stride}, but max_length {max_length} leaves beside the longest question ({longest}) only "
            f"{plural(max(room - longest, 0), 'token')}. Set doc_stride lower or max_length higher."
        )
    return cut


def _tokenize(
    tokenizer: Tokenizer, questions: Sequence[str], contexts: Sequence[str], max_length: int, stride: int
) -> Any:
    return tokenizer(
        list(questions),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False,
    )


def _cut_questions(tokenizer: Tokenizer, questions: Sequence[str]) -> tuple[list[str], int]:
    """Cuts the questions to 64 tokens, without leading space; returns also the length of the longest."""
    # Some questions begin with many spaces, which truncation of the paragraph alone could not make room for.
    cut, longest = [question.lstrip() for question in questions], 0
    for first in range(0, len(cut), BATCH):
        batch = tokenizer(cut[first : first + BATCH], add_special_tokens=False, return_offsets_mapping=True)
        for i, offsets in enumerate(batch["offset_mapping"], first):
            tokens = len(offsets)
            if tokens > MAX_QUESTION:
                cut[i] = cut[i][: offsets[MAX_QUESTION - 1][1]]
                # Byte-pair merges may come out otherwise in a text that ends earlier.
                tokens = len(tokenizer(cut[i], add_special_tokens=False)["input_ids"])
            longest = max(longest, tokens)
    return cut, longest


def _context_offsets(batch: Any, i: int) -> np.ndarray:
    offsets = np.array(batch["offset_mapping"][i], dtype=np.int32)
    offsets[[part != 1 for part in batch.sequence_ids(i)]] = -1
    return offsets


def _positions(offsets: np.ndarray, start: int, answer: str) -> dict[str, int]:
    """Finds the first and last token of an answer; the window's first token if it is not wholly in it."""
    start += len(answer) - len(answer.lstrip())  # no token begins at a space
    end = start + len(answer.strip())
    inside = offsets[:, 0] >= 0
    first = np.flatnonzero(inside & (offsets[:, 1] > start))
    last = np.flatnonzero(inside & (offsets[:, 0] < end))
    whole = (
        first.size
        and last.size
        and first[0] <= last[-1]
        and offsets[first[0], 0] <= start
        and offsets[last[-1], 1] >= end
    )
    return {"start_positions": int(first[0]) if whole else 0, "end_positions": int(last[-1]) if whole else 0}
