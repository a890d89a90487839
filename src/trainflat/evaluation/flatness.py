"""Measures the sharpness of a model's minimum on rows of its training set."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.core.settings import Section
from trainflat.objective.passes import Kind
from trainflat.sharpness import MEASURES, Measure, Objective, distinct
from trainflat.tasks.base import EncodedSplit


def objective_on(
    model: PreTrainedModel,
    split: EncodedSplit,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Objective:
    """Returns the model's loss on rows of a split as an objective: drawn by the seed, batched by length.

    Args:
        model: With a head for the split's task.
        split: Most measures are meant for the training split, whose loss is what training made small.
        tokenizer: Pads.
        rows: How many; all of a smaller split.
        batch_size: Rows per forward and backward pass. The result does not depend on it.
        seed: Of the draw.
        masks: True = kept; with them only surviving weights move, so that dense and pruned models compare.
        progress: Is advanced with every batch.

    Raises:
        InputError: the split is empty, or a size is not positive.
    """
    if min(rows, batch_size) < 1:
        raise InputError(
            f"flatness is measured on at least 1 row in batches of at least 1, got {rows} and {batch_size}."
        )
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:rows].tolist()
    order = sorted(drawn, key=lambda row: (split.lengths[row], row))
    collate = DataCollatorWithPadding(tokenizer)
    batches = [
        dict(collate([split[row] for row in order[start : start + batch_size]]))
        for start in range(0, len(order), batch_size)
    ]
    return Objective(model, batches, masks=masks, progress=progress)


def measure_flatness(
    objective: Objective, measures: Sequence[Section], seed: int = 0
) -> list[tuple[dict[str, float], float]]:
    """Takes each measure; returns what it finds, and the seconds it took.

    Args:
        objective: See :func:`objective_on`.
        measures: Settings, or sections as in recipes: ``{"name": "keskar", "epsilon": 0.001}``.
        seed: Of whatever they draw.

    Raises:
        UnknownName: no measure, or no option of it, has that name.
        InputError: an option makes no sense, two measures give figures of one name, a measure wants more weights
            than there are, or the loss is not finite. All but the last is told before anything is measured.
    """
    found = []
    for member in checked_measures(objective, measures, seed):
        started = time.perf_counter()
        figures = member.measure(objective, seed)
        found.append((figures, time.perf_counter() - started))
    return found


def checked_measures(objective: Objective, measures: Sequence[Section], seed: int = 0) -> list[Measure]:
    """Builds the measures that a recipe names and checks that each can be taken; raises as :func:`measure_flatness`."""
    members: list[Measure] = [MEASURES.read(section).build() for section in measures]
    distinct(members)
    for member in members:
        member.check(objective, seed)
    return members


def expected_seconds(objective: Objective, members: Sequence[Measure]) -> list[tuple[float, float]]:
    """Estimates how long each measure takes, about and at most, by passes over the batch of middle length."""
    if not members:
        return []
    parts = list(objective.split(objective.rows))
    part = parts[len(parts) // 2]
    asked = {kind for member in members for kind in member.passes()}
    scale = objective.rows / part.rows
    with objective.measuring():
        vector = part.gradient()  # the first is slower than those that follow
        ways: dict[Kind, Callable[[], object]] = {
            "values": part.value,
            "gradients": part.gradient,
            "products": lambda: part.hvp(vector),
        }
        each = {kind: scale * _timed(way) if kind in asked else 0.0 for kind, way in ways.items()}
    return [member.seconds(objective, each) for member in members]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
