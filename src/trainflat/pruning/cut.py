"""The exact cut: which entries have the lowest scores, found without sorting them."""

import math
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np

from trainflat.pruning.keys import Array, Keys, Piece, over_pieces

# One key in 257 is looked at first. Odd, and prime to the widths of matrices: every 256th entry of a matrix with 768
# columns would see only three columns, and columns of trained encoders differ.
_STRIDE = 257
_SMALL = 1 << 16  # up to here looking at every key costs nothing
_STANDARD_ERRORS = 6


@dataclass(frozen=True)
class Cut:
    """Entries with a key below ``threshold`` go, and of those equal to it the first ``ties`` in index order."""

    threshold: int
    ties: int
    tied: list[int] = field(repr=False)  # how many entries are equal to it, piece by piece


def find_cut(keys: Keys, drop: int) -> Cut:
    """Finds where the ``drop`` lowest of all keys end; exact for any keys.

    The threshold is first bracketed: a sample's quantiles six standard errors below and above the wanted rank. One pass
    then counts the keys below the bracket and at its two ends, and collects those inside, about 0.6 % of all; the
    threshold is selected among these. Where the rank falls outside the bracket, which takes an adversarial order, the
    digits of the threshold are found by counting instead.

    Args:
        keys: The scores.
        drop: How many entries go, from 0 to ``keys.count``.
    """
    if drop == 0:
        return Cut(threshold=0, ties=0, tied=[0 for _ in keys.pieces()])
    low, high = _bracket(keys, drop)
    tallies = over_pieces(keys, lambda _, k: _count(k, low, high))
    rank = drop - sum(tally.below for tally in tallies)  # among the keys in the closed bracket, counted from 1
    if rank <= 0:
        return _by_digits(keys, drop)
    at_low = sum(tally.at_low for tally in tallies)
    if rank <= at_low:
        return Cut(low, rank, [tally.at_low for tally in tallies])
    rank -= at_low
    inside = np.concatenate([tally.inside for tally in tallies])
    if rank <= len(inside):
        value = np.partition(inside, rank - 1)[rank - 1]
        tied = [int(np.count_nonzero(tally.inside == value)) for tally in tallies]
        return Cut(int(value), rank - int(np.count_nonzero(inside < value)), tied)
    rank -= len(inside)
    if rank <= sum(tally.at_high for tally in tallies):
        return Cut(high, rank, [tally.at_high for tally in tallies])
    return _by_digits(keys, drop)


def pack_kept(keys: Keys, cut: Cut) -> dict[str, Array]:
    """Pack one bit per entry, 1 = kept, as ``numpy.packbits`` of each tensor in index order.

    Raises:
        InputError: a score is NaN; names the tensor.
    """
    packed: dict[str, list[Array]] = {name: [np.empty(0, np.uint8)] for name in keys.names}
    pieces = keys.pieces()
    ends = np.cumsum(cut.tied, dtype=np.int64)
    shares = np.clip(cut.ties - ends + cut.tied, 0, cut.tied).tolist()  # of the ties, piece by piece
    plan = {piece: (share, tied) for piece, share, tied in zip(pieces, shares, cut.tied, strict=True)}
    bits = over_pieces(keys, lambda piece, k: _pack(k, cut.threshold, *plan[piece]), check=True)
    for piece, part in zip(pieces, bits, strict=True):
        packed[piece.name].append(part)
    return {name: np.concatenate(parts) for name, parts in packed.items()}


def _bracket(keys: Keys, drop: int) -> tuple[int, int]:
    stride = _STRIDE if keys.count > _SMALL else 1
    sample = keys.sample(stride)
    sample.sort()
    share = drop / keys.count
    middle = share * len(sample)
    margin = _STANDARD_ERRORS * math.sqrt(middle * (1 - share)) + 1
    low, high = math.floor(middle - margin), math.ceil(middle + margin)
    top = int(np.iinfo(keys.unsigned).max)
    return int(sample[low]) if low >= 0 else 0, int(sample[high]) if high < len(sample) else top


class _Tally(NamedTuple):
    """How many keys of a piece are below the bracket, at its lower and at its upper end; and those inside."""

    below: int
    at_low: int
    at_high: int
    inside: Array


def _count(k: Array, low: int, high: int) -> _Tally:
    below = k < low
    closed = k <= high
    closed ^= below
    inside = k[closed]
    at_low = int(np.count_nonzero(inside == low))
    at_high = int(np.count_nonzero(inside == high)) if high > low else 0
    if at_low + at_high:  # many equal scores are counted, never collected
        inside = inside[(inside != low) & (inside != high)]
    return _Tally(int(np.count_nonzero(below)), at_low, at_high, inside)


def _by_digits(keys: Keys, drop: int) -> Cut:
    """The threshold's digits to the base 2^16, from the highest, each by one pass that counts the entries."""
    prefix, rank = 0, drop
    for shift in range(8 * keys.unsigned.itemsize - 16, -1, -16):
        histogram = _histogram(keys, shift, prefix)
        ends = np.cumsum(histogram)
        digit = int(np.searchsorted(ends, rank))
        rank -= int(ends[digit] - histogram[digit])
        prefix = prefix << 16 | digit
    return Cut(prefix, rank, over_pieces(keys, lambda _, k: int(np.count_nonzero(k == prefix))))


def _histogram(keys: Keys, shift: int, prefix: int) -> Array:
    """How often each value of the 16 bits above ``shift`` occurs among the keys whose higher bits are ``prefix``."""
    histogram, lock = np.zeros(1 << 16, np.int64), Lock()

    def add(_: Piece, k: Array) -> None:
        if shift + 16 < 8 * k.itemsize:
            k = k[k >> (shift + 16) == prefix]
        counts = np.bincount((k >> shift & 0xFFFF).astype(np.int64), minlength=1 << 16)
        with lock:
            np.add(histogram, counts, out=histogram)

    over_pieces(keys, add)
    return histogram


def _pack(k: Array, threshold: int, ties: int, tied: int) -> Array:
    """``ties`` of the piece's ``tied`` entries at the threshold go, the first ones."""
    if ties == tied > 0:
        return np.packbits(k > threshold)
    kept = k >= threshold
    if ties:
        kept[np.flatnonzero(k == threshold)[:ties]] = False
    return np.packbits(kept)
