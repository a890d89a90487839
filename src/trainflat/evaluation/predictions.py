"""Computes predictions on a split without a Trainer: for untrained stages and final scores."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from trainflat.anatomy.heads import kind_of
from trainflat.core.errors import InputError
from trainflat.evaluation.modes import evaluating
from trainflat.tasks.base import ANSWERS, EncodedSplit, Predictions, Task

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Progress = Callable[[int, int], object]

NO_TOKEN = np.float32(-1e9)  # logit of a position that a row does not have; two of them can be added without overflow


def predict(
    model: PreTrainedModel, split: EncodedSplit, collate: Collate, batch_size: int, *, progress: Progress | None = None
) -> Predictions:
    """Computes the logits of every row, in the split's order.

    The model is given no answers, so it computes no loss; its mode and the random state are left as they were.

    Args:
        model: On the device where it shall run.
        split: Rows as the task encoded them.
        collate: Pads a list of rows into a batch of tensors.
        batch_size: Rows per forward pass.
        progress: Called after each batch with rows done and rows in all.

    Returns:
        float32: [N, classes], [N, 1] for regression, or (start [N, T], end [N, T]) with T the longest row and
        -1e9 where a row has no token.

    Raises:
        InputError: the split has no rows or ``batch_size`` is not positive.
    """
    if len(split) == 0:
        raise InputError(f"split {split.name!r} has no rows to evaluate.")
    if batch_size < 1:
        raise InputError(f"the evaluation batch size is at least 1, got {batch_size}.")
    parts: list[tuple[NDArray[np.float32], ...]] = []
    with evaluating(model) as device:
        for start in range(0, len(split), batch_size):
            rows = [_question(split[i]) for i in range(start, min(start + batch_size, len(split)))]
            batch = {name: value.to(device) for name, value in collate(rows).items()}
            parts.append(_logits(model, model(**batch)))
            if progress is not None:
                progress(start + len(rows), len(split))
    columns = tuple(_stack(column) for column in zip(*parts, strict=True))
    return columns[0] if len(columns) == 1 else columns


def score(
    task: Task,
    model: PreTrainedModel,
    split: EncodedSplit,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int = 32,
    *,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Computes all metrics of the task on one split, in percent."""
    return task.score(split, predictions_of(model, split, tokenizer, batch_size, progress=progress))


def predictions_of(
    model: PreTrainedModel,
    split: EncodedSplit,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int = 32,
    *,
    progress: Progress | None = None,
) -> Predictions:
    """See :func:`predict`, whose batches the tokenizer pads here."""
    return predict(model, split, DataCollatorWithPadding(tokenizer), batch_size, progress=progress)


def scoring_seconds(model: PreTrainedModel, split: EncodedSplit, tokenizer: PreTrainedTokenizerBase) -> float:
    """Measures the seconds that predictions take per token, on one batch from the middle of a split."""
    start = max(0, len(split) // 2 - 16)
    rows = slice(start, start + 32)
    part = EncodedSplit(split.name, split.rows[rows], split.lengths[rows])
    predictions_of(model, part, tokenizer)  # the first pass is slower than those that follow
    started = time.perf_counter()
    predictions_of(model, part, tokenizer)
    return (time.perf_counter() - started) / sum(part.lengths)


def sample_split(split: EncodedSplit, rows: int, seed: int = 0) -> EncodedSplit:
    """Draws rows of a split, in its order; all where there are fewer, or where rows belong together (spans).

    Args:
        split: Of a task whose score is one of rows.
        rows: How many.
        seed: Of the draw.
    """
    if split.extras or len(split) <= rows:
        return split
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:rows]
    kept = drawn.sort().values.tolist()
    order = [split.order[i] for i in kept] if split.order else kept
    return EncodedSplit(split.name, [split.rows[i] for i in kept], [split.lengths[i] for i in kept], order=order)


def _question(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ANSWERS}


def _logits(model: Any, output: Any) -> tuple[NDArray[np.float32], ...]:
    spans = "start_logits" in output
    if not spans and "logits" not in output:
        kind_of(model, output)  # refuses it
    tensors: Iterable[Tensor] = (output["start_logits"], output["end_logits"]) if spans else (output["logits"],)
    return tuple(tensor.to(torch.float32).cpu().numpy() for tensor in tensors)


def _stack(batches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stacks batches [n, T_i] or [n, T_i, C] to [N, max T_i], ..."""
    width = max(batch.shape[1] for batch in batches)
    full = np.full((sum(map(len, batches)), width, *batches[0].shape[2:]), NO_TOKEN, dtype=np.float32)
    row = 0
    for batch in batches:
        full[row : row + len(batch), : batch.shape[1]] = batch
        row += len(batch)
    return full
