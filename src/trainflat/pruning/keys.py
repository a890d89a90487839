"""Sortable integers: scores as unsigned integers in the same order, read piece by piece."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.pruning.masks import Masks

T = TypeVar("T")
Array = NDArray[Any]

# Entries per piece: threads hand the interpreter to each other so often that smaller pieces, which would stay in a
# core's second-level cache, take half as long again. A multiple of 8: each starts at a whole byte of a packed mask.
PIECE = 1 << 20
_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Magnitudes(Mapping[str, Tensor]):
    """Absolute values of tensors, by name, computed when they are asked for.

    The cut never asks: it reads the tensors themselves and clears the sign bit on the way, so that a global cut needs
    no copy of the model.
    """

    def __init__(self, signed: Mapping[str, Tensor]) -> None:
        self.signed = {name: tensor.detach() for name, tensor in signed.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.signed[name].abs()

    def __iter__(self) -> Iterator[str]:
        return iter(self.signed)

    def __len__(self) -> int:
        return len(self.signed)


class Piece(NamedTuple):
    """Entries ``start`` to ``stop`` of a tensor in index order."""

    name: str
    start: int
    stop: int


class Keys:
    """One unsigned integer per score, ordered like the scores; ``-0.0`` equals ``0.0``.

    IEEE 754 numbers of one sign are ordered like their bits. The keys are never stored as a whole: a piece is made in
    scratch memory each time it is read. Tensors that are not in the CPU's memory are copied over piece by piece.

    Args:
        scores: Floating-point tensors of any shape, device and dtype; different dtypes are compared in the wider one.
        kept: Entries that it drops get key 0, below every other key.

    Raises:
        InputError: for scores that are not floating-point.
    """

    def __init__(self, scores: Mapping[str, Tensor], kept: Masks | None = None) -> None:
        self.absolute = isinstance(scores, Magnitudes)
        tensors = scores.signed if isinstance(scores, Magnitudes) else scores
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                raise InputError(f"the scores of {name} have dtype {tensor.dtype}. Give floating-point scores.")
        self.dtype = reduce(torch.promote_types, (t.dtype for t in tensors.values()))
        if self.dtype.itemsize not in _INTEGER:
            self.dtype = torch.float32
        self.unsigned: np.dtype[Any] = np.dtype(f"u{self.dtype.itemsize}")
        self.kept = kept
        self.names = list(tensors)
        self.count = sum(t.numel() for t in tensors.values())
        self._flat = {name: t.detach().contiguous().view(-1) for name, t in tensors.items()}
        sign = 1 << (8 * self.dtype.itemsize - 1)
        self._sign, self._below_sign = self.unsigned.type(sign), self.unsigned.type(sign - 1)
        self._infinity = int(self._bits(torch.tensor([torch.inf]))[0])

    def pieces(self) -> list[Piece]:
        """Cut all entries into pieces, in order: tensor by tensor."""
        return [
            Piece(name, start, min(start + PIECE, len(flat)))
            for name, flat in self._flat.items()
            for start in range(0, len(flat), PIECE)
        ]

    def scratch(self) -> Array:
        """Allocate memory for one piece."""
        longest = max((len(flat) for flat in self._flat.values()), default=0)
        return np.empty(min(PIECE, longest), self.unsigned)

    def read(self, piece: Piece, scratch: Array, *, check: bool) -> Array:
        """Computes the keys of a piece, in ``scratch``.

        Raises:
            InputError: if ``check``, for a score that is NaN; names the tensor.
        """
        out = scratch[: piece.stop - piece.start]
        self._order(self._bits(self._flat[piece.name][piece.start : piece.stop]), out, piece.name if check else None)
        if self.kept is not None:
            self._sink(out, self.kept.unpacked(piece.name, piece.start, piece.stop))
        return out

    def sample(self, stride: int) -> Array:
        """Returns every ``stride``-th key over all tensors, in order."""
        parts, start = [], 0
        for name, flat in self._flat.items():
            bits = self._bits(flat[-start % stride :: stride])
            out = np.empty(len(bits), self.unsigned)
            self._order(bits, out)
            if self.kept is not None:
                self._sink(out, self.kept.unpacked(name)[-start % stride :: stride])
            parts.append(out)
            start += len(flat)
        return np.concatenate(parts)

    def value(self, key: int) -> float:
        """Returns the score that has a key, where no entries were given key 0 for being dropped before."""
        sign = int(self._sign)
        bits = key if self.absolute else key - sign if key >= sign else sign | (sign - key)
        number = torch.from_numpy(np.array([bits], self.unsigned).view(f"i{self.unsigned.itemsize}"))
        return float(number.view(self.dtype))

    def _bits(self, flat: Tensor) -> Array:
        part = flat.to("cpu", self.dtype)
        return part.view(_INTEGER[self.dtype.itemsize]).numpy().view(self.unsigned)

    def _order(self, bits: Array, out: Array, checked: str | None = None) -> None:
        np.bitwise_and(bits, self._below_sign, out=out)
        if checked is not None and out.max() > self._infinity:
            raise InputError(f"the scores of {checked} contain NaN. Look at the step that made them.")
        if not self.absolute:
            # All ones where the score is negative: x ^ ones - ones is -x, ten times as fast as a masked one.
            ones = (bits.view(f"i{bits.itemsize}") >> (8 * bits.itemsize - 1)).view(self.unsigned)
            out ^= ones
            out -= ones
            out += self._sign  # now -inf ... inf stand around the middle of the range, far from its ends

    def _sink(self, keys: Array, kept: Array) -> None:
        keys += self.unsigned.type(1)  # makes 0 free; no overflow, for above infinity there are only NaNs
        keys *= kept


def over_pieces(keys: Keys, work: Callable[[Piece, Array], T], *, check: bool = False) -> list[T]:
    """Run ``work(piece, keys of the piece)`` for all pieces, in order, on as many threads as torch uses.

    The array of keys is scratch, valid until ``work`` returns. numpy lets other threads run while it computes.

    Raises:
        InputError: if ``check``, for a score that is NaN; names the tensor.
    """
    pieces = keys.pieces()
    threads = min(torch.get_num_threads(), len(pieces))

    def share(start: int) -> list[T]:
        scratch = keys.scratch()
        return [work(piece, keys.read(piece, scratch, check=check)) for piece in pieces[start::threads]]

    if threads <= 1:
        return share(0) if pieces else []
    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(share, range(threads)))
    return [shares[i % threads][i // threads] for i in range(len(pieces))]
