"""Encodes questions and paragraphs as overlapping windows of tokens, and decodes answer spans from their logits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.base import Tokenizer
from trainflat.tasks.encoding import BATCH, check_length

MAX_QUESTION = 64  # tokens; BERT's published run_squad.py cuts longer questions too


@dataclass(frozen=True)
class Window:
    """Holds a question with a part of its paragraph.

    Attributes:
        question: Index of the question in its split.
        row: Model inputs, with the answer's ``start_positions`` and ``end_positions``.
        offsets: int32 [T, 2], first character and end of each token in the paragraph; -1 for tokens outside of it.
    """

    question: int
    row: dict[str, Any]
    offsets: np.ndarray


def encode_windows(
    tokenizer: Tokenizer, columns: Mapping[str, Sequence[Any]], max_length: int, stride: int
) -> Iterator[Window]:
    """Encodes the windows of every question, in order.

    Args:
        columns: "question", "context", "answers" and "starts" (character offsets). Of several answers the first is
            the training target, as in BERT's published code.
        max_length: Tokens per window.
        stride: Overlap of two windows in tokens. BERT's run_squad.py measures the distance between their starts
            instead, which gives a few more windows at the same number.

    Raises:
        InputError: a window has no room for more than the stride, or the tokenizer has no character offsets.
    """
    questions = _fitting_questions(tokenizer, columns["question"], max_length, stride)
    for first in range(0, len(questions), BATCH):
        part = slice(first, first + BATCH)
        batch: Any = tokenizer(
            questions[part],
            list(columns["context"][part]),
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
        )
        names = [name for name in tokenizer.model_input_names if name in batch]
        for i, sample in enumerate(batch["overflow_to_sample_mapping"]):
            question, offsets = first + sample, _context_offsets(batch, i)
            target = _positions(offsets, columns["starts"][question][0], columns["answers"][question][0])
            yield Window(question, {name: batch[name][i] for name in names} | target, offsets)


def _fitting_questions(tokenizer: Tokenizer, questions: Sequence[str], max_length: int, stride: int) -> list[str]:
    """Cuts the questions, and checks that the longest leaves room for windows that advance."""
    if not tokenizer.is_fast:
        raise InputError(
            "spans need a tokenizer with character offsets, and this model has none. Use a model with a fast one."
        )
    room = check_length(tokenizer, max_length, pair=True)
    cut, longest = _cut_questions(tokenizer, questions)
    if stride >= room - longest:  # the Rust tokenizer would not raise but panic
        raise InputError(
            f"doc_stride is {stride}, but max_length {max_length} leaves beside the longest question ({longest}) only "
            f"{plural(max(room - longest, 0), 'token')}. Set doc_stride lower or max_length higher."
        )
    return cut


def _cut_questions(tokenizer: Tokenizer, questions: Sequence[str]) -> tuple[list[str], int]:
    """Cuts the questions to 64 tokens, without leading space; returns also the length of the longest."""
    # Some questions of SQuAD begin with many spaces, each a token for byte-level BPE. "only_second" truncates nothing
    # but the paragraph, so that such a question would fill the window.
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
    offsets[[part != 1 for part in batch.sequence_ids(i)]] = -1  # the question's offsets count in another text
    return offsets


def _positions(offsets: np.ndarray, start: int, answer: str) -> dict[str, int]:
    """Finds the first and last token of an answer; 0, the window's first token, unless the window holds all of it."""
    start += len(answer) - len(answer.lstrip())  # offsets of tokens exclude spaces
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


def best_span(
    start_T: np.ndarray, end_T: np.ndarray, offsets_T2: np.ndarray, n_best: int, max_tokens: int
) -> tuple[float, int, int] | None:
    """Finds the span with the highest sum of start and end logit.

    Shape suffixes: T tokens of the window without padding. As in the published evaluation only the ``n_best`` starts
    and ends are combined, and a span lies in the paragraph and has 1 to ``max_tokens`` tokens.

    Args:
        start_T, end_T: Logits.
        offsets_T2: First character and end of each token in the paragraph; -1 for tokens outside of it.

    Returns:
        Sum of the logits, first character and end; None if no combination is a span.
    """
    context = np.flatnonzero(offsets_T2[: len(start_T), 0] >= 0)
    # A stable sort: equal logits, as of an untrained head, give the same span on every machine.
    starts, ends = (context[np.argsort(-logits[context], kind="stable")[:n_best]] for logits in (start_T, end_T))
    tokens = ends[None, :] - starts[:, None] + 1
    scores = np.where((tokens >= 1) & (tokens <= max_tokens), start_T[starts][:, None] + end_T[ends][None, :], -np.inf)
    if scores.size == 0 or np.isneginf(scores.max()):
        return None
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[i, j]), int(offsets_T2[starts[i], 0]), int(offsets_T2[ends[j], 1])
