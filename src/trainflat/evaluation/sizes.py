"""Counts a model's zeros per matrix, its parameters, and its bytes in three forms."""

import zlib

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trainflat.anatomy.params import prunable
from trainflat.core.positions import gap_bytes
from trainflat.evaluation.zeros import check_zeros
from trainflat.pruning import Masks
from trainflat.records.run import MatrixZeros, Sizes

_FLOAT = 4  # bytes


def matrix_zeros(model: nn.Module) -> list[MatrixZeros]:
    """Counts the entries and zeros of every prunable matrix, in the model's order."""
    return [
        MatrixZeros(name=name, entries=w.numel(), zeros=w.numel() - int(w.detach().count_nonzero()))
        for name, w in prunable(model).items()
    ]


def measure_sizes(model: nn.Module, masks: Masks | None = None) -> Sizes:
    """Counts parameters and bytes; a parameter that is used in several places counts once.

    Bytes are those of the tensors, as float32; file headers, a few kilobytes, are left out. A prunable matrix is taken
    sparse where that is smaller: the values that are not zero and an index of where they stand, which is one bit per
    entry (``bitmask_bytes``) or the smallest of `index_forms`, really compressed (``packed_bytes``). All other
    parameters stay dense.

    Args:
        model: To measure.
        masks: What must be zero; checked first, so that no figure is given for zeros that are not there.

    Raises:
        ZerosRevived: a weight outside ``masks`` is not zero.
    """
    if masks is not None:
        check_zeros(model, masks)
    matrices = prunable(model)
    inside = {id(p) for p in matrices.values()}
    rest = [p for p in model.parameters() if id(p) not in inside]  # parameters() lists a shared one once
    entries = sum(p.numel() for p in matrices.values())
    parameters = entries + sum(p.numel() for p in rest)
    encoder_nonzero = sum(int(p.detach().count_nonzero()) for p in matrices.values())
    nonzero = encoder_nonzero + sum(int(p.detach().count_nonzero()) for p in rest)
    sparse = [_sparse_bytes((p.detach() != 0).cpu().numpy().ravel()) for p in matrices.values()]
    dense_rest = _FLOAT * (parameters - entries)
    return Sizes(
        parameters=parameters,
        nonzero=nonzero,
        encoder_sparsity=1 - encoder_nonzero / entries if entries else 0.0,
        total_sparsity=1 - nonzero / parameters if parameters else 0.0,
        dense_bytes=_FLOAT * parameters,
        bitmask_bytes=dense_rest + sum(bitmask for bitmask, _ in sparse),
        packed_bytes=dense_rest + sum(packed for _, packed in sparse),
    )


def index_forms(kept: NDArray[np.bool_]) -> dict[str, bytes]:
    """Encodes where the values of a flat matrix stand, in every form that is tried.

    ``bits`` one bit per entry, the first entry in the highest bit; ``zlib`` the same, compressed at level 6; ``gaps``
    as `positions.gap_bytes` makes them.
    """
    bits = np.packbits(kept).tobytes()
    return {"bits": bits, "zlib": zlib.compress(bits, 6), "gaps": gap_bytes(kept)}


def _sparse_bytes(kept: NDArray[np.bool_]) -> tuple[int, int]:
    """Counts the bytes of one matrix: with a bit per entry, and with the smallest index; dense where that is less."""
    dense, values = _FLOAT * kept.size, _FLOAT * int(kept.sum())
    forms = {name: len(index) for name, index in index_forms(kept).items()}
    return min(dense, values + forms["bits"]), min(dense, values + min(forms.values()))
