"""Encodes the positions of a sparse matrix's values in few bytes.

An index is one byte for its form, then the code. A random mask that keeps a share p of n entries needs at least n ·
H(p) bits, with H the binary entropy. For p of a hundredth and more the shortest form is at most 2 % longer than that,
because gaps between kept entries are geometric and a Huffman code of them is nearly optimal (11 % longer at a
thousandth, where many gaps take several bytes). Masks with structure get shorter still.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from trainflat.core.formatting import plural

ALL, BITS, BITS_DEFLATED, GAPS, GAPS_DEFLATED = range(5)
_ESCAPE = 255  # a gap byte that skips 255 entries and keeps none
_SPARE = 64  # bytes to decompress beyond the expected length, enough to see that a code is too long


def encode(kept: NDArray[np.bool_]) -> bytes:
    """Encodes a flat mask in the shortest of the codes.

    Example:
        >>> kept = np.array([False, True, True] + [False] * 300 + [True])
        >>> len(encode(kept)), decode(encode(kept), entries=304, count=3).tolist()
        (5, [1, 2, 303])
    """
    if kept.all():
        return bytes([ALL])
    bits, gaps = np.packbits(kept).tobytes(), gap_bytes(kept)
    forms = {BITS: bits, GAPS: gaps, BITS_DEFLATED: _deflate(bits), GAPS_DEFLATED: _deflate(gaps)}
    form = min(forms, key=lambda form: (len(forms[form]), form))
    return bytes([form]) + forms[form]


def decode(index: bytes, *, entries: int, count: int) -> NDArray[np.int64]:
    """Decodes the kept positions in ascending order, in memory proportional to ``entries`` whatever ``index`` is.

    Args:
        index: Code that :func:`encode` returned.
        entries: Number of entries of the matrix.
        count: Number of kept entries.

    Raises:
        ValueError: the index is not of a mask that keeps ``count`` of ``entries``.
    """
    form, code = (index[0], index[1:]) if index else (-1, b"")
    if form == ALL and not code and count == entries:
        return np.arange(entries)
    if form in (BITS, BITS_DEFLATED):
        return _read_bits(code if form == BITS else _inflate(code, -(-entries // 8)), entries, count)
    if form in (GAPS, GAPS_DEFLATED):
        return _read_gaps(code if form == GAPS else _inflate(code, count + entries // _ESCAPE), entries, count)
    raise ValueError(f"an index of form {form} that does not fit")


def gap_bytes(kept: NDArray[np.bool_]) -> bytes:
    """Encodes the entries skipped before each kept one, a byte each; 255 means "skip 255 and read on".

    Example:
        >>> list(gap_bytes(np.array([False, True, True] + [False] * 300 + [True])))
        [1, 0, 255, 45]
    """
    positions = np.flatnonzero(kept)
    skipped = np.diff(positions, prepend=-1) - 1
    escapes, remainder = np.divmod(skipped, _ESCAPE)
    stream = np.full(len(positions) + int(escapes.sum()), _ESCAPE, dtype=np.uint8)
    stream[np.cumsum(escapes + 1) - 1] = remainder
    return stream.tobytes()


def _read_bits(code: bytes, entries: int, count: int) -> NDArray[np.int64]:
    if len(code) != -(-entries // 8):
        raise ValueError(f"{plural(len(code), 'byte')} of bits for {plural(entries, 'entry', 'entries')}")
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    positions = np.flatnonzero(bits)
    if len(positions) != count or bits[entries:].any():
        raise ValueError(f"bits that do not keep {count} of {plural(entries, 'entry', 'entries')}")
    return positions


def _read_gaps(code: bytes, entries: int, count: int) -> NDArray[np.int64]:
    stream = np.frombuffer(code, np.uint8)
    kept = stream != _ESCAPE
    # Each byte skips as many entries as its value, and each below 255 then keeps one: positions are cumulative sums.
    ends = np.cumsum(stream, dtype=np.int64) + np.cumsum(kept, dtype=np.int64) - 1
    positions: NDArray[np.int64] = ends[kept]
    if len(positions) != count or (len(ends) and (not kept[-1] or ends[-1] >= entries)):
        raise ValueError(f"gaps that do not keep {count} of {plural(entries, 'entry', 'entries')}")
    return positions


def _deflate(code: bytes) -> bytes:
    """Deflates with Huffman coding alone and with matches, and returns the shorter code."""
    # Random gaps have no repetitions, and looking for some makes their code longer; structured masks have many.
    found = []
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY):
        compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        found.append(compressor.compress(code) + compressor.flush())
    return min(found, key=len)


def _inflate(code: bytes, most: int) -> bytes:
    """Decompresses a code of at most ``most`` bytes; a few kilobytes of a file could otherwise inflate to gigabytes."""
    expand = zlib.decompressobj()
    try:
        plain = expand.decompress(code, most + _SPARE)
    except zlib.error as error:
        raise ValueError(f"a code that cannot be read ({error})") from error
    if len(plain) > most or not expand.eof or expand.unused_data:
        raise ValueError("a code that does not end where it should")
    return plain
