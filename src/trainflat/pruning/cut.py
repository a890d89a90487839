"""The exact cut: which entries have the lowest scores, found without sorting them."""

import math
from dataclasses import dataclass
from threading import Lock

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
    equal: int  # entries whose key is the threshold


def find_cut(keys: Keys, drop: int) -> Cut:
    """Where the ``drop`` lowest of all keys end; exact for any keys.

    The threshold is first bracketed: a sample's quantiles six standard errors below and above the wanted rank. One pass
    then counts the keys below the bracket and at its two ends, and collects those inside, about 0.6 % of all; the
    threshold is selected among these. Where the rank falls outside the bracket, which takes an adversarial order, the
    digits of the threshold are found by counting instead.

    Args:
        keys: The scores.
        drop: How many entries go, from 0 to ``keys.count``.
    """
    if drop == 0:
        return Cut(threshold=0, ties=0, equal=0)
    low, high = _bracket(keys, drop)
    counted = over_pieces(keys, lambda _, k: _count(k, low, high))
    tallies = [tally for tally, _ in counted]
    below, at_low, at_high = (sum(count[i] for count in tallies) for i in range(3))
    inside = np.concatenate([between for _, between in counted])
    rank = drop - below  # among the keys in the closed bracket, counted from 1
    if 0 < rank <= at_low:
        return Cut(low, rank, at_low)
    rank -= at_low
    if 0 < rank <= len(inside):
        value = np.partition(inside, rank - 1)[rank - 1]
        return Cut(int(value), rank - int(np.count_nonzero(inside < value)), int(np.count_nonzero(inside == value)))
    rank -= len(inside)
    if 0 < rank <= at_high:
        return Cut(high, rank, at_high)
    return _by_digits(keys, drop)


def pack_kept(keys: Keys, cut: Cut) -> dict[str, Array]:
    """One bit per entry, 1 = kept, as ``numpy.packbits`` of each tensor in index order."""
    packed: dict[str, list[Array]] = {name: [np.empty(0, np.uint8)] for name in keys.names}
    pieces = keys.pieces()
    tied = [0] * len(pieces)
    if 0 < cut.ties < cut.equal:
        tied = over_pieces(keys, lambda _, k: int(np.count_nonzero(k == cut.threshold)))
    dropped = np.clip(cut.ties - np.cumsum([0, *tied]), 0, [*tied, 0]).tolist()
    budget = dict(zip(pieces, dropped, strict=False))
    whole = 0 < cut.ties == cut.equal
    bits = over_pieces(keys, lambda piece, k: _pack(k, cut.threshold, None if whole else budget[piece]))
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


def _count(k: Array, low: int, high: int) -> tuple[tuple[int, int, int], Array]:
    """How many keys are below ``low``, equal to it and equal to ``high``; and those between, without the ends."""
    below = int(np.count_nonzero(k < low))
    k -= k.dtype.type(low)  # wraps for what lies below: one comparison then tests both ends
    inside = k[k <= high - low]
    at_low, at_high = int(np.count_nonzero(inside == 0)), int(np.count_nonzero(inside == high - low))
    if high == low:
        return (below, at_low, 0), inside[:0].copy()
    if at_low + at_high:  # many equal scores are counted, never collected
        inside = inside[(inside != 0) & (inside != high - low)]
    return (below, at_low, at_high), inside + k.dtype.type(low)


def _by_digits(keys: Keys, drop: int) -> Cut:
    """The threshold's digits to the base 2^16, from the highest, each by one pass that counts the entries."""
    prefix, rank, equal = 0, drop, keys.count
    for shift in range(8 * keys.unsigned.itemsize - 16, -1, -16):
        histogram = _histogram(keys, shift, prefix)
        ends = np.cumsum(histogram)
        digit = int(np.searchsorted(ends, rank))
        equal = int(histogram[digit])
        rank -= int(ends[digit]) - equal
        prefix = prefix << 16 | digit
    return Cut(prefix, rank, equal)


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


def _pack(k: Array, threshold: int, ties: int | None) -> Array:
    """``ties``: how many of the piece's entries at the threshold go, the first ones; ``None`` for all."""
    if ties is None:
        return np.packbits(k > threshold)
    kept = k >= threshold
    if ties:
        kept[np.flatnonzero(k == threshold)[:ties]] = False
    return np.packbits(kept)
