"""Packs one matrix for a sparse file: where its values stand, and the values."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.positions import ALL, decode, encode

Values = Literal["fp32", "fp16", "int8"]
INDEX, VALUES, SHAPE, SCALES = "sparse_index", "sparse_values", "sparse_shape", "sparse_scales"
PARTS = (INDEX, VALUES, SHAPE, SCALES)
_LARGEST = 2**40  # entries of one matrix
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Header:
    """Holds type and shape of a tensor in a file, known without reading it."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def check_values(values: str, what: str = "values") -> None:
    """Checks that there is such a way to hold values. Raises InputError if it is none."""
    if values not in get_args(Values):
        raise InputError(f"{what} are held as {', '.join(get_args(Values))}, got {values!r}.")


def pack(weight: Tensor, values: Values, name: str) -> dict[str, Tensor]:
    """Packs a matrix into its parts. What is zero stays zero, -0.0 too, which is read back as 0.0.

    Args:
        weight: [rows, columns], floating.
        values: ``fp32``: the bits as they are, in the type of ``weight``; ``fp16``: rounded; ``int8``: rounded to
            multiples of a 127th of the largest of their row (or up to 0.8 % more, see `round_rows`), so off by half of
            that at most.
        name: For messages.

    Returns:
        ``sparse_index`` uint8 as `positions.encode` gives it; ``sparse_values`` in row order; ``sparse_shape`` int64
        [rows, columns]; with int8 ``sparse_scales`` bfloat16 [rows]: value = integer x scale, in float32.

    Raises:
        InputError: a value is not finite, or too large for ``fp16``.
    """
    weight = weight.detach().cpu()
    kept = weight != 0
    parts = {INDEX: torch.frombuffer(bytearray(encode(kept.reshape(-1).numpy())), dtype=torch.uint8)}
    parts[SHAPE] = torch.tensor(weight.shape)
    if values == "fp32":
        return parts | {VALUES: weight[kept]}
    if values == "fp16":
        halves = weight[kept].half()
        _check_finite(halves, name, values)
        return parts | {VALUES: halves}
    _check_finite(weight, name, values)
    integers, scales = round_rows(weight.float())
    return parts | {VALUES: integers[kept], SCALES: scales}


def round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds to integers from -127 to 127 [rows, columns], a bfloat16 scale per row [rows]; zero stays zero.

    At 97 % zeros a row of BERT has two dozen values: a scale of four bytes would be a tenth of them. One of two is
    rounded up, so that the largest value still fits; values are then rounded with it as it is stored.
    """
    scales = weight.abs().amax(dim=1) / 127
    scales[scales == 0] = 1.0  # an empty row, or one so near to zero that its values cannot be distinguished
    scales = ((scales.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    return (weight / scales[:, None]).round().to(torch.int8), scales.bfloat16()


def check_parts(name: str, headers: Mapping[str, Header], shape: tuple[int, ...]) -> None:
    """Checks that the parts of a matrix fit each other and its shape; reads and makes nothing of the matrix's size.

    Raises:
        DamagedFile: says what does not fit.
    """
    for part in (INDEX, VALUES):
        if part not in headers:
            raise DamagedFile(f"{name} lacks its {part}")
    index, values = headers[INDEX], headers[VALUES]
    if len(shape) != 2 or min(shape) < 1 or prod(shape) > _LARGEST:
        raise DamagedFile(f"{name} has the shape {list(shape)}")
    if index.dtype != torch.uint8 or len(index.shape) != 1 or values.dtype not in (torch.int8, *_FLOATS):
        raise DamagedFile(f"{name} has parts of types that no sparse file has")
    if len(values.shape) != 1 or values.shape[0] > prod(shape):
        raise DamagedFile(f"{name} has values of shape {list(values.shape)} for the shape {list(shape)}")
    scales = headers.get(SCALES)
    fits = scales is None if values.dtype != torch.int8 else scales == Header(torch.bfloat16, (shape[0],))
    if not fits:
        raise DamagedFile(f"{name} has scales that do not fit its values")


def unpack(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    """Unpacks the dense matrix: in the type of its values, float32 where these were rounded.

    Args:
        name: For messages.
        parts: As ``pack`` gives them, or what a file has instead.

    Raises:
        DamagedFile: they do not fit each other, or a scale is no number.
    """
    check_parts(name, {part: Header(t.dtype, tuple(t.shape)) for part, t in parts.items()}, shape_of(name, parts))
    rows, columns = parts[SHAPE].tolist()
    values, index = parts[VALUES], parts[INDEX].numpy().tobytes()
    try:
        positions = decode(index, entries=rows * columns, count=len(values))
    except ValueError as error:
        raise DamagedFile(f"{name} has {error}") from error
    places = torch.from_numpy(positions)
    if values.dtype == torch.int8:
        if not parts[SCALES].isfinite().all():
            raise DamagedFile(f"{name} has scales that are no numbers")
        values = values.float() * parts[SCALES].float()[places // columns]
    elif values.dtype == torch.float16:
        values = values.float()
    if index[0] == ALL:
        return values.reshape(rows, columns)
    dense = torch.zeros(rows * columns, dtype=values.dtype)
    dense[places] = values
    return dense.reshape(rows, columns)


def shape_of(name: str, parts: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Reads the shape of a matrix from its parts. Raises DamagedFile if they have none."""
    shape = parts.get(SHAPE)
    if shape is None or shape.dtype != torch.int64 or shape.shape != (2,):
        raise DamagedFile(f"{name} lacks its {SHAPE}")
    return tuple(shape.tolist())


def packed_bytes(parts: Mapping[str, Tensor]) -> int:
    """Counts the bytes of the parts in a file, without their names."""
    return sum(part.numel() * part.element_size() for part in parts.values())


def _check_finite(values: Tensor, name: str, held: Values) -> None:
    if not values.isfinite().all():
        raise InputError(f"{name} has values that {held} cannot hold. Export it with values=fp32.")
