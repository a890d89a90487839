"""Fills the zeros of a smaller model with noise, so that it can use all of its matrices (Lagunas et al. 2021)."""

import torch
from torch import nn

from trainflat.anatomy import anatomy_of
from trainflat.anatomy.params import unwrapped

SPREAD = 0.01


@torch.no_grad()
def fill_zeros(model: nn.Module, seed: int = 0) -> int:
    """Draws each zero entry of the layers' matrices from a narrow normal distribution around the matrix's mean.

    The *filled* models of block movement pruning: blocks that were pruned inside of matrices that stay make nothing
    faster, so after :func:`shrink` they are given back, and the model is trained again without a penalty. A zero has a
    gradient as any other entry; but where whole rows and columns of two matrices in a row are zero neither has one.
    ``mean + 0.01 std N(0, 1)`` as in the published code, with mean and deviation of all entries, zeros included.
    Departs in that embeddings and heads are left alone, which no gate prunes.

    Args:
        model: A transformers model of a known architecture, changed in place.
        seed: Of the draws, which are made on the CPU: the same on every machine and process.

    Returns:
        How many entries were filled.

    Raises:
        InputError: no anatomy is known of the model's architecture.
    """
    plain = unwrapped(model)
    anatomy, tensors = anatomy_of(plain), dict(plain.named_parameters(remove_duplicate=False))
    draws, filled = torch.Generator().manual_seed(seed), 0
    for name in anatomy.matrices():
        weight = tensors[name]
        zeros = weight == 0
        if name in anatomy.other or not zeros.any():
            continue
        noise = torch.randn(weight.shape, generator=draws).to(weight)
        weight.copy_(torch.where(zeros, weight.mean() + SPREAD * weight.std() * noise, weight))
        filled += int(zeros.sum())
    return filled
