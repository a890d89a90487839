"""Rounds weights and activations to integers, and multiplies these."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LARGEST = 127  # our own rounding never uses -128, so that it is the same on both sides of zero
SMALLEST_STEP = torch.finfo(torch.float32).tiny  # a row of zeros gets it too: it has no largest value to divide by


class Quantized(NamedTuple):
    """Holds integers that stand for ``step * (integers - zero)``."""

    integers: Tensor  # int8
    step: Tensor  # float32, broadcasts against ``integers``
    zero: Tensor | None = None  # the integer that stands for 0.0; None is 0


def quantize_rows(weight_NK: Tensor) -> Quantized:
    """Rounds to symmetric int8, a step per row: ``step = max|w| / 127``, ``integer = round(w / step)``, ties to even.

    Every weight comes back within half a step, and a zero as exactly zero. For rows of activations the same.

    Shape suffixes: N rows (output channels, words or tokens), K values in each. Computed in float32. A row whose
    largest value is not finite gets a step that is not finite either.
    """
    weight = weight_NK.float()
    # Two reads instead of weight.abs(), and one reciprocal per row: this runs for the input of every layer.
    largest = torch.maximum(weight.amax(-1, keepdim=True), weight.amin(-1, keepdim=True).neg_())
    step = largest.div_(LARGEST).clamp_(min=SMALLEST_STEP)
    return Quantized((weight * step.reciprocal()).round_().to(torch.int8), step)


def quantize_batch(x_MK: Tensor) -> Quantized:
    """Rounds to affine int8, one step and one zero for all: ``step = (max - min) / 255`` over a range that holds 0."""
    low, high = (bound.float() for bound in torch.aminmax(x_MK))
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = ((high - low) / (2 * LARGEST + 1)).clamp_(min=SMALLEST_STEP)
    zero = (-LARGEST - 1 - low / step).round_().clamp_(-LARGEST - 1, LARGEST)
    integers = (x_MK.float() * step.reciprocal()).round_().add_(zero).clamp_(-LARGEST - 1, LARGEST)
    return Quantized(integers.to(torch.int8), step, zero)


def quantize_fixed(x_MK: Tensor, step: Tensor) -> Quantized:
    """Rounds to symmetric int8 with a given step: ``clamp(round(x / step), -127, 127)``."""
    integers = (x_MK.float() * step.reciprocal()).round_().clamp_(-LARGEST, LARGEST)
    return Quantized(integers.to(torch.int8), step)


def quantize_batch_as_torch(x_MK: Tensor) -> Quantized:
    """Rounds the inputs of a layer as torch's dynamic quantization does: like ``quantize_batch``, but in 7 bits.

    ``step = (max - min) / 127`` and ``integer = round(x / step + zero)``, from 0 to 127 there (128 where the zero was
    rounded up), 64 less here.
    """
    low, high = (bound.double() for bound in torch.aminmax(x_MK.float()))
    low, high = low.clamp(max=0), high.clamp(min=0)
    exact = ((high - low) / LARGEST).clamp_(min=SMALLEST_STEP)
    zero, step = (-low / exact).round_().clamp_(0, LARGEST).float(), exact.float()
    integers = (x_MK.float() * step.reciprocal()).add_(zero).round_().clamp_(0, LARGEST + 1).sub_(_MIDDLE)
    return Quantized(integers.to(torch.int8), step, zero - _MIDDLE)


def quantize_matrix_as_torch(weight_NK: Tensor) -> Quantized:
    """Rounds weights as torch's dynamic quantization does by default: symmetric int8, one step for the whole matrix.

    ``step = max|w| / 127.5``, ``integer = clamp(round(w / step), -128, 127)``; the step comes once per row, [N, 1].
    """
    weight = weight_NK.float()
    step = (weight.abs().amax() / (LARGEST + 0.5)).clamp_(min=torch.finfo(torch.float32).eps)
    integers = (weight * step.reciprocal()).round_().clamp_(-LARGEST - 1, LARGEST)
    return Quantized(integers.to(torch.int8), step.repeat(len(weight), 1))


_MIDDLE = 64  # of torch's unsigned integers, so that ours fit into int8
ACTIVATIONS = {"token": quantize_rows, "batch": quantize_batch, "torch": quantize_batch_as_torch}


def integer_product(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """Computes ``x @ weight.T`` of two int8 matrices, [M, N], by the fastest way that is exact here.

    int32 from torch's integer kernel where there is one; else float32 from a float product of the integers, which is
    exact too as long as no sum leaves ±2^24, and rounds to 24 bits beyond. A sum of 1040 products cannot leave it, one
    of 3072, as in BERT, only if most of them are large and of one sign.
    """
    if _allowed and x_MK.device.type == "cpu" and has_integer_kernel():
        return torch._int_mm(x_MK, weight_NK.t())
    with _no_autocast(x_MK.device.type):
        return functional.linear(x_MK.float(), weight_NK.float())


@cache
def has_integer_kernel() -> bool:
    """Returns whether this processor multiplies int8 fast and exactly: it has VNNI, and the hardest cases are right.

    Without VNNI oneDNN adds pairs of products in 16 bits, which overflows, or torch takes a loop without vectors.
    """
    capabilities = torch.cpu.get_capabilities()
    if not hasattr(torch, "_int_mm") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not (capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")):
        return False
    most = torch.full((64, 64), LARGEST, dtype=torch.int8)
    return all(
        bool((torch._int_mm(a, b) == 64 * int(a[0, 0]) * int(b[0, 0])).all())
        for a, b in ((most, most), (-most, most), (most, -most), (-most - 1, most))
    )


_allowed = True


@contextmanager
def without_integer_kernel() -> Iterator[None]:
    """Lets every int8 layer compute in float32 with its dequantized integers, as it does where there is no kernel."""
    global _allowed  # noqa: PLW0603 -- for the whole process, like torch.backends.mkldnn.flags
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before


def _no_autocast(device: str) -> torch.autocast | nullcontext[None]:
    """Switches autocast off: bfloat16 would hold the integers, but not their sums."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
