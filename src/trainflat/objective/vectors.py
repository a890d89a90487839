"""Computes with vectors that are lists of tensors, one per parameter."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.foreach import foreach

Vector = list[Tensor]


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Computes the inner product over all entries in float64: float32 sums over millions lose digits."""
    return float(sum((x * y).sum(dtype=torch.float64).item() for x, y in zip(a, b, strict=True)))


def norm(a: Sequence[Tensor]) -> float:
    """Computes the 2-norm over all entries together."""
    return math.sqrt(dot(a, a))


def scaled(a: Sequence[Tensor], factor: float) -> Vector:
    """Returns ``factor * a``, a new vector."""
    return foreach("mul", list(a), factor)


def flatten(a: Sequence[Tensor]) -> Tensor:
    """Concatenates all entries into one tensor [n], in order."""
    return torch.cat([x.reshape(-1) for x in a])


def unflatten(flat: Tensor, like: Sequence[Tensor]) -> Vector:
    """Returns views of ``flat`` [n] in the shapes of ``like``."""
    pieces = torch.split(flat, [x.numel() for x in like])
    return [piece.view_as(x) for piece, x in zip(pieces, like, strict=True)]


def drawn(numbers: Tensor, like: Tensor) -> Tensor:
    """Moves random numbers to a direction's device and type; drawn on the CPU, they are the same everywhere."""
    return numbers.to(like.device, torch.promote_types(like.dtype, torch.float32))


def apart(value: Tensor, weight: Tensor) -> Tensor:
    """Copies a value that shares memory with a weight: what ``state_dict()`` holds moves along with the model."""
    same = value.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    return value.detach().clone() if same else value


def fitting(masks: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Checks masks and returns one per parameter, on its device, or None."""
    for name in masks:
        if name not in named:
            raise UnknownName("measured parameter", name, named)
        if masks[name].shape != named[name].shape or masks[name].dtype != torch.bool:
            raise InputError(
                f"the mask of {name} is {masks[name].dtype} {tuple(masks[name].shape)}; the weights want a boolean one "
                f"of {tuple(named[name].shape)}."
            )
    return [masks[name].to(p.device) if name in masks else None for name, p in named.items()]
