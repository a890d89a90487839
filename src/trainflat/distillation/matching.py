"""Matches a teacher's layers with a student's layers, as CoFi does (Xia, Zhong and Chen, ACL 2022, arXiv:2204.00408).

Layers are numbered as transformers numbers ``hidden_states``: 0 is what the first layer reads, L the last of L layers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch

from trainflat.core.rng import generator

Matching = Literal["nearest", "ordered", "fixed", "random-windows"]
Match = dict[int, int]
"""Number of the student layer that each teacher layer, by its place among the chosen ones, is matched with."""


def nearest(table: Sequence[Sequence[float]]) -> Match:
    """Matches every teacher layer with the student layer of the lowest loss (``layer_distill_version`` 3 of CoFi).

    Layers that are gone count too, as published: one that passes its input on has the loss of the layer before it,
    which is then taken.

    Args:
        table: Losses, a row per teacher layer and a column per student layer, from layer 1.
    """
    return {place: min(range(len(row)), key=row.__getitem__) + 1 for place, row in enumerate(table)}


def ordered(table: Sequence[Sequence[float]], alive: Sequence[bool]) -> Match:
    """Matches teacher layers from the last one down, each with the lowest loss below the match before (version 4).

    Departs from CoFi's code, which filters the layers in the order of their losses by a mask in the order of their
    numbers, and takes a layer twice, or one that is not there, when none is left: here a choice leaves as many alive
    layers below it as there are teacher layers to come. With fewer alive layers than teacher layers, only the last
    teacher layers are matched.

    Args:
        table: As for :func:`nearest`.
        alive: Which student layers, from layer 1, still compute something.

    Returns:
        A strictly increasing match with alive layers only.
    """
    columns = [number for number, lives in enumerate(alive) if lives]
    found, below = {}, len(columns)
    # `left` counts the teacher layers to come. A choice is feasible if and only if it has as many columns below it; so
    # this bound is what a search over all assignments would find.
    for left, place in reversed(list(enumerate(range(len(table))[-len(columns) :] if columns else ()))):
        losses = [table[place][column] for column in columns]
        below = min(range(left, below), key=losses.__getitem__)
        found[place] = columns[below] + 1
    return found


def same_depth(layer: int, teacher_depth: int, student_depth: int) -> int:
    """Returns the student layer at the relative depth of a teacher layer, rounded up; 0 for 0.

    Example:
        >>> [same_depth(layer, 12, 6) for layer in (0, 2, 3, 12)]
        [0, 1, 2, 6]
    """
    return -(-layer * student_depth // teacher_depth)


def draw_layers(layers: Sequence[int], *keys: int) -> list[int]:
    """Draws a teacher layer from each window that ends with one of ``layers`` (version 6 of CoFi's code).

    Of the first window its last layer is always taken: the code raises a draw among the first three layers of twelve to
    the third. Departs from it in that all passes and micro-batches of a step, on all processes, have one draw.

    Args:
        layers: Ascending numbers.
        *keys: A seed and the number of a step, on which the draw depends alone.
    """
    draws = generator("cpu", *keys)
    others = (int(torch.randint(before + 1, last + 1, (), generator=draws)) for before, last in pairwise(layers))
    return [layers[0], *others]
