"""Reads sparse folders, or refuses them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from trainflat.core.errors import DamagedFile
from trainflat.export.packed import PARTS, SHAPE, Header, check_parts, shape_of, unpack
from trainflat.models.safe_load import build_model, read_config
from trainflat.models.stored import MOVE, Stored, check_memory, check_sealed, read_tensors, stored_tensors

T = TypeVar("T")
QUANT_METHOD = "trainflat-sparse"
_TYPES = {"U8": torch.uint8, "I8": torch.int8, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16}
_TYPES |= {"F32": torch.float32, "F64": torch.float64}


def load_sparse(folder: Path) -> PreTrainedModel:
    """Loads the model of a sparse folder, dense in memory.

    Raises:
        InputError: a file is missing, or the weights are a pickle.
        DamagedFile: a file is not what was written, or no model fits it.
    """
    check_sealed(folder)
    stored = stored_tensors(folder)
    shapes = check_stored(folder, stored)
    skeleton = build_model(folder, read_config(folder, len(stored)), shapes)
    tensors, matrices = _sorted(read_tensors(stored))
    with _in(folder):
        for stem, parts in matrices.items():
            tensors[f"{stem}weight"] = unpack(f"{stem}weight", parts)
    return skeleton.fill(tensors)


def check_stored(folder: Path, stored: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
    """Checks all parts and returns every tensor's and matrix's shape by name; reads nothing else.

    Raises:
        DamagedFile: parts do not fit each other, or all together are too much for the files.
    """
    shapes, matrices = _sorted(stored)
    read = read_tensors({name: one for name, one in stored.items() if _is_shape(name, one)})
    found = {name: one.shape for name, one in shapes.items()}
    with _in(folder):
        for stem, parts in matrices.items():
            name = f"{stem}weight"
            if name in shapes:
                raise DamagedFile(f"{name} is there twice")
            shape = shape_of(name, {SHAPE: read[stem + SHAPE]} if stem + SHAPE in read else {})
            check_parts(
                name, {part: Header(_TYPES.get(p.dtype, torch.bool), p.shape) for part, p in parts.items()}, shape
            )
            found[name] = shape
    check_memory(folder, 4 * sum(map(prod, found.values())))
    return found


def _is_shape(name: str, one: Stored) -> bool:
    return name.endswith(SHAPE) and (one.dtype, one.shape) == ("I64", (2,))


def _sorted(tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Sorts into plain tensors by name, and parts of matrices by the name without its last part."""
    plain: dict[str, T] = {}
    matrices: dict[str, dict[str, T]] = defaultdict(dict)
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in PARTS:
            matrices[name.removesuffix(last)][last] = tensor
        else:
            plain[name] = tensor
    return plain, dict(matrices)


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    try:
        yield
    except DamagedFile as error:
        raise DamagedFile(f"{folder}: {error}. {MOVE}") from error
