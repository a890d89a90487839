"""Moves weights along lines and planes, and measures there."""

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector
from trainflat.sharpness.directions import PIECE, Direction
from trainflat.sharpness.measure import is_number, is_whole
from trainflat.sharpness.states import put, require

K = TypeVar("K")
V = TypeVar("V")


class AffineSubspace:
    """Writes points ``origin + sum_k c_k * directions[k]`` into an objective's weights in place.

    Every point is computed from the origin: moving from one to the next would add up rounding errors. Weights that no
    direction moves (biases, frozen heads) are written once, by :meth:`enter`.
    """

    def __init__(self, objective: Objective, origin: Vector, directions: Sequence[Direction]) -> None:
        self.weights, self.origin = objective.weights, origin
        self.directions = [
            [d.to(o.device, o.dtype) for d, o in zip(direction, origin, strict=True)] for direction in directions
        ]
        moved = [any(map(torch.any, parts)) for parts in zip(*self.directions, strict=True)]
        sides = (self.weights, origin, *self.directions)
        self._moving = [piece for *same, moves in zip(*sides, moved, strict=True) if moves for piece in _views(*same)]

    def enter(self) -> None:
        """Sets all weights to the origin."""
        put(self.weights, self.origin)

    @torch.no_grad()
    def move_to(self, *coordinates: float) -> None:
        """Moves the weights to a point; :meth:`enter` comes first."""
        for weight, start, *ways in self._moving:
            weight.copy_(start)
            for way, coordinate in zip(ways, coordinates, strict=True):
                weight.add_(way, alpha=coordinate)


def _views(*same: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Splits tensors of one shape into pieces, so that a copy and its additions find them in the processor's cache."""
    whole = [tensor.detach() for tensor in same]
    if all(tensor.is_contiguous() for tensor in whole):
        return zip(*(torch.split(tensor.view(-1), PIECE) for tensor in whole), strict=True)
    return iter([tuple(whole)])


def survey(
    objective: Objective,
    what: str,
    subspace: AffineSubspace,
    *,
    models: Mapping[K, Vector],
    places: Mapping[K, tuple[float, ...]],
    measure: Callable[[], V],
    found: MutableMapping[K, V],
) -> None:
    """Measures models at exactly their weights, then the other places of a subspace, in order.

    Args:
        what: Name for the progress display.
        models: Weights by key.
        places: Coordinates by key; a key of a model is not measured again, since its coordinates are rounded.
        measure: Called with the weights in place.
        found: Results by key, filled one by one; keys that it has already are skipped.
    """
    missing = {*models, *places}.difference(found)
    with objective.taking(what, len(missing)):
        for key, weights in models.items():
            if key not in found:
                put(objective.weights, weights)
                found[key] = measure()
        subspace.enter()
        for key, coordinates in places.items():
            if key not in found:
                subspace.move_to(*coordinates)
                found[key] = measure()


def finite_loss(objective: Objective) -> float | None:
    """Computes the loss at the current weights; None if it is not finite, as may happen far from a minimum."""
    value = objective.value()
    return value if math.isfinite(value) else None


def evenly_spaced(low: float, high: float, count: int) -> list[float]:
    """Returns ``count`` values from ``low`` to ``high``, both ends exact."""
    return [low * (1 - k / (count - 1)) + high * (k / (count - 1)) for k in range(count)]


def check_extent(side: str, size: int, margin: float, span: float) -> None:
    """Validates the extent of a grid; ``side`` is its name in messages.

    Raises:
        InputError: ``size`` is not a whole number above 1, ``margin`` is below 0, or ``span`` is not above 0.
    """
    require(is_whole(size) and size >= 2, f"{side} has a whole number of at least 2 points, got size {size}.")
    is_share = is_number(margin) and 0 <= margin < math.inf
    require(is_share, f"margin is a share of the distance between the points, 0 or more, got {margin}.")
    is_length = is_number(span) and 0 < span < math.inf
    require(is_length, f"span is how far to go along a direction, above 0, got {span}.")
