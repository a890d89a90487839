"""Fake quantization: rounds floats to values that int8 can stand for, with gradients straight through."""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainflat.quantization.arithmetic import LARGEST, SMALLEST_STEP

Weights = Literal["tensor", "channel"]


class Rounding(Protocol):
    """Rounds the inputs of fake layers; a method such as :class:`trainflat.quantization.Q8BERT` does."""

    weights: Weights

    def inputs(self, place: str, x: Tensor, training: bool) -> Tensor:
        """Rounds the inputs of the layer at ``place``; while training it may also learn their range."""


def wide(x: Tensor) -> Tensor:
    """Detaches from the graph, in float32 at least."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def step_of(weight_NK: Tensor, per: Weights) -> Tensor:
    """Computes ``max|w| / 127``: one for the whole matrix, or one per row [N, 1], as ``quantize_rows`` takes it."""
    largest = wide(weight_NK).abs()
    largest = largest.amax(-1, keepdim=True) if per == "channel" else largest.amax()
    return (largest / LARGEST).clamp(min=SMALLEST_STEP)


def integers_of(x: Tensor, step: Tensor) -> Tensor:
    """Computes ``clamp(round(x / step), -127, 127)`` as floats, halves to even."""
    return (wide(x) * step.reciprocal()).round_().clamp_(-LARGEST, LARGEST)


def fake_quantize(x: Tensor, step: Tensor) -> Tensor:
    r"""Rounds to the nearest values that an int8 with this step can stand for.

    Its gradient passes as if nothing were rounded or clamped (the straight-through estimator, Bengio et al. 2013), also
    where ``x`` lies beyond the range, as in Q8BERT: :math:`\partial x_q / \partial x = 1`. The step counts as a
    constant.

    Args:
        x: Floats of any shape.
        step: Broadcasts against ``x``, positive.

    Returns:
        As ``x`` in shape and type; computed in float32 at least.
    """
    found: Tensor = _StraightThrough.apply(x, (integers_of(x, step) * step).to(x.dtype))  # type: ignore[no-untyped-call]
    return found


class _StraightThrough(torch.autograd.Function):
    # Not x + (rounded - x).detach(), whose sum would round once more: a converted model must see the same values.
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class FakeInt8Linear(nn.Linear):
    """Multiplies, as ``nn.Linear``, what its int8 counterpart would."""

    quantizer: Rounding
    place: str

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in_features] to [..., out_features]."""
        weight = fake_quantize(self.weight, step_of(self.weight, self.quantizer.weights))
        return functional.linear(self.quantizer.inputs(self.place, x, self.training), weight, self.bias)


class FakeInt8Embedding(nn.Embedding):
    """Looks up, as ``nn.Embedding``, what its int8 counterpart would."""

    quantizer: Rounding
    place: str

    def forward(self, ids: Tensor) -> Tensor:
        """Maps [...] to [..., embedding_dim]."""
        rows = super().forward(ids)  # rounded after the look-up: a batch has fewer words than the table
        per = self.quantizer.weights
        return fake_quantize(rows, step_of(rows if per == "channel" else self.weight, per))
