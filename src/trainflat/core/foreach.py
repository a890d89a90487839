"""Applies one operation to a list of tensors: fused by torch where it can, else tensor by tensor."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor


def foreach(operation: str, tensors: Sequence[Tensor], *others: Any, **options: Any) -> list[Tensor]:
    """Applies ``Tensor.operation`` to each tensor; where the name ends in ``_``, in place.

    Args:
        operation: ``add``, ``mul_``, ``copy_``, ``norm`` and others that ``torch._foreach_...`` has.
        tensors: At least one.
        others: Further arguments; a list or tuple has one for each tensor.
        options: Keyword arguments, the same for all.

    Example:
        >>> foreach("add", [torch.ones(2), torch.zeros(1)], [torch.ones(2), torch.ones(1)], alpha=2)
        [tensor([3., 3.]), tensor([2.])]
    """
    # torch's private functions launch one kernel for many tensors; on a GPU a model's hundreds of small launches would
    # take longer than the arithmetic. The loop below gives the same bits where a future torch has dropped one.
    fused = getattr(torch, f"_foreach_{operation}", None)
    if fused is not None:
        return list(fused(tensors, *others, **options) or ())
    single: Any = torch.linalg.vector_norm if operation == "norm" else getattr(Tensor, operation)
    columns = (other if isinstance(other, list | tuple) else repeat(other) for other in others)
    return [single(*row, **options) for row in zip(tensors, *columns, strict=False)]
