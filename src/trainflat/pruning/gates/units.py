"""What one score is for: a weight, a row or column of a matrix, or a block of it."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from trainflat.core.errors import InputError, UnknownName

Unit = Literal["weight", "row", "column", "block"]
BLOCK = 32


def known_unit(unit: Unit) -> Unit:
    """Raises UnknownName for a unit that does not exist."""
    if unit not in get_args(Unit):
        raise UnknownName("unit", str(unit), get_args(Unit))
    return unit


def unit_shapes(weights: Mapping[str, Tensor], unit: Unit) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """By weight, the shape of its scores and the view of the weight that they broadcast over.

    Raises:
        InputError: a matrix cannot be cut into blocks.
    """
    return {name: _shapes(name, w, unit) for name, w in weights.items()}


def _shapes(name: str, weight: Tensor, unit: Unit) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows, columns = weight.shape
    if unit == "row":
        return (rows, 1), (rows, columns)
    if unit == "column":
        return (1, columns), (rows, columns)
    if unit == "weight":
        return (rows, columns), (rows, columns)
    if rows % BLOCK or columns % BLOCK:
        raise InputError(
            f"{name} of {rows} by {columns} cannot be cut into blocks of {BLOCK} by {BLOCK}. Choose unit: weight, row "
            "or column."
        )
    high, wide = rows // BLOCK, columns // BLOCK
    return (high, 1, wide, 1), (high, BLOCK, wide, BLOCK)


def expanded(values: Tensor, weight: Tensor, unit: Unit) -> Tensor:
    """One value per score, spread over the weights of its unit."""
    view = _shapes("", weight, unit)[1]
    return values.expand(view).reshape(weight.shape)
