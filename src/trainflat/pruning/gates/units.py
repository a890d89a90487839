"""Describes units of masks: which entries of which tensors one value is for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from trainflat.anatomy import Unit as AnatomyUnit
from trainflat.core.errors import InputError

Unit = Literal["weight", "row", "column", "block"]
BLOCK = 32


@dataclass(frozen=True)
class View:
    """Values that broadcast over a tensor seen in another shape: its weights, rows, columns or blocks."""

    shape: tuple[int, ...]

    def spread(self, values: Tensor) -> Tensor:
        """Returns one value for each unit as a tensor that broadcasts over ``shape``."""
        return values

    def collect(self, entries: Tensor, shape: torch.Size) -> Tensor:
        """Returns the sum of a tensor's entries over each unit, in the ``shape`` of the units' values."""
        return entries.view(self.shape).sum_to_size(shape)


@dataclass(frozen=True)
class Along:
    """Values at places along one axis of a tensor.

    Attributes:
        shape: Of the tensor.
        axis: Along which the units lie.
        index: Number of the unit at each place; of places in no unit one more than the last.
    """

    shape: tuple[int, ...]
    axis: int
    index: Tensor

    def spread(self, values: Tensor) -> Tensor:
        places = torch.cat([values, values.new_ones(1)])[self.index.to(values.device)]
        return places.view([-1 if axis == self.axis else 1 for axis in range(len(self.shape))])

    def collect(self, entries: Tensor, shape: torch.Size) -> Tensor:
        places = entries.movedim(self.axis, 0).flatten(1).sum(1) if entries.dim() > 1 else entries
        total = entries.new_zeros(shape.numel() + 1)
        return total.index_add_(0, self.index.to(entries.device), places)[:-1]


@dataclass(frozen=True)
class Blocks:
    """Values at blocks of a matrix, row of blocks by row; those at its right and lower edges may be smaller.

    Attributes:
        shape: Of the matrix.
        size: Rows and columns of a block.
    """

    shape: tuple[int, ...]
    size: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Returns how many blocks lie below and beside each other."""
        high, wide = (-(-length // side) for length, side in zip(self.shape, self.size, strict=True))
        return high, wide

    def spread(self, values: Tensor) -> Tensor:
        rows, columns = self.shape
        return values.repeat_interleave(self.size[0], 0)[:rows].repeat_interleave(self.size[1], 1)[:, :columns]

    def collect(self, entries: Tensor, shape: torch.Size) -> Tensor:
        (high, wide), (rows, columns) = self.size, self.shape
        # Padded and summed, not added by index: that has no fixed order on a GPU.
        whole = F.pad(entries, (0, shape[1] * wide - columns, 0, shape[0] * high - rows))
        return whole.view(shape[0], high, shape[1], wide).sum((1, 3))


@dataclass(frozen=True)
class Following:
    """Values of entries that stay where anything of their unit or row of units does, and that nothing is learned by.

    Attributes:
        along: Number of the unit, or of the row of units, of each place.
    """

    along: Along

    @property
    def shape(self) -> tuple[int, ...]:
        return self.along.shape

    def spread(self, values: Tensor) -> Tensor:
        return self.along.spread((values.view(len(values), -1) != 0).any(1).to(values.dtype))

    def collect(self, entries: Tensor, shape: torch.Size) -> Tensor:
        return entries.new_zeros(shape)


Spread = View | Along | Blocks | Following


@dataclass(frozen=True)
class MaskGroup:
    """Units whose values are the entries of one parameter.

    Attributes:
        shape: Of the parameter.
        members: How the values lie over each tensor, by its name; where there are several ways, all of them multiply.
    """

    shape: tuple[int, ...]
    members: Mapping[str, tuple[Spread, ...]]


def matrix_units(weights: Mapping[str, Tensor], unit: Unit) -> dict[str, MaskGroup]:
    """Returns a group for each matrix alone, by the matrix's name.

    Raises:
        InputError: a matrix cannot be cut into blocks.
    """
    groups = {}
    for name, weight in weights.items():
        shape, view = _shapes(name, weight, unit)
        groups[name] = MaskGroup(shape, {name: (View(view),)})
    return groups


def structure_units(units: Iterable[AnatomyUnit], tensors: Mapping[str, Tensor]) -> dict[str, MaskGroup]:
    """Returns a group for each kind and layer among units of an anatomy; a value multiplies all slices of its unit.

    Args:
        units: As :meth:`trainflat.anatomy.Anatomy.units` returns them; lists of several kinds may be chained.
        tensors: The model's parameters by name.

    Example:
        >>> from trainflat.anatomy import Slice
        >>> pair = (Slice("up.weight", 0, 1, 2), Slice("down.weight", 1, 1, 2))
        >>> shapes = {"up.weight": torch.empty(3, 2), "down.weight": torch.empty(2, 3)}
        >>> [group] = structure_units([AnatomyUnit("feed-forward unit", 0, 0, pair)], shapes).values()
        >>> group.members["up.weight"][0].spread(torch.tensor([0.5])).tolist()
        [[1.0], [0.5], [1.0]]
    """
    grouped: dict[str, list[AnatomyUnit]] = {}
    for unit in units:
        grouped.setdefault(unit.kind if unit.layer is None else f"{unit.kind} {unit.layer}", []).append(unit)
    return {name: _group(own, tensors) for name, own in grouped.items()}


def _group(units: list[AnatomyUnit], tensors: Mapping[str, Tensor]) -> MaskGroup:
    indices: dict[tuple[str, int], Tensor] = {}
    for number, unit in enumerate(units):
        for s in unit.slices:
            nobody = torch.full((tensors[s.tensor].shape[s.axis],), len(units))
            indices.setdefault((s.tensor, s.axis), nobody)[s.start : s.stop] = number
    members: dict[str, tuple[Spread, ...]] = {}
    for (name, axis), index in indices.items():
        members[name] = (*members.get(name, ()), Along(tuple(tensors[name].shape), axis, index))
    return MaskGroup((len(units),), members)


def _shapes(name: str, weight: Tensor, unit: Unit) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows, columns = weight.shape
    high, wide = rows // BLOCK, columns // BLOCK
    if unit == "block" and (rows % BLOCK or columns % BLOCK):
        raise InputError(
            f"{name} of {rows} by {columns} cannot be cut into blocks of {BLOCK} by {BLOCK}. Choose unit: weight, row "
            "or column."
        )
    return {
        "weight": ((rows, columns), (rows, columns)),
        "row": ((rows, 1), (rows, columns)),
        "column": ((1, columns), (rows, columns)),
        "block": ((high, 1, wide, 1), (high, BLOCK, wide, BLOCK)),
    }[unit]


def expanded(values: Tensor, spread: Spread, shape: torch.Size) -> Tensor:
    """Returns the values of units at each entry of a tensor."""
    assert prod(spread.shape) == shape.numel(), "a spread covers its tensor"
    return spread.spread(values).expand(spread.shape).reshape(shape)
