"""The int8 kernels that eager torch has for one linear layer, each with all that it needs beside the product.

128 tokens through BERT's layers of 768 x 768 and 768 x 3072 and 3072 x 768, with bias; weights int8 with a step per
output channel, rounded and packed before. Inputs are float32, and rounding them counts, as does giving float32 back.
`torch._int_mm` is `trainflat.quantization.Int8Linear`, inputs rounded per token or per batch; oneDNN is
`torch.ops.onednn.qlinear_pointwise`, inputs rounded per batch by the same function; deprecated is
`torch.ao.nn.quantized.dynamic.Linear`; `torch._weight_int8pack_mm` rounds no inputs and computes in bfloat16. A sample
is 20 calls.
"""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from trainflat.quantization import quantize_dynamic, quantize_rows
from trainflat.quantization.arithmetic import quantize_batch

TOKENS, CALLS = 128, 20
SHAPES = ((768, 768), (768, 3072), (3072, 768))  # inputs and outputs
INT_MM, FLOAT = "_int_mm, token", "float32"
Layer = Callable[[Tensor], Tensor]


def main() -> None:
    """Times all layers on each shape."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("kernels", __doc__, settings)
    torch.manual_seed(0)
    for inputs, outputs in SHAPES:
        group = f"{TOKENS} x {inputs} into {outputs}, {settings.threads} threads"
        layers, x = _layers(nn.Linear(inputs, outputs)), torch.randn(TOKENS, inputs)
        candidates = {name: Candidate(_calls(layer, x)) for name, layer in layers.items()}
        result.add(group, alternate(candidates, settings.repeats))
        for name in layers:
            if name != INT_MM:
                result.ratio(group, name, INT_MM)
    result.finish()


def _layers(dense: nn.Linear) -> dict[str, Layer]:
    packed = quantize_rows(dense.weight.detach())
    step, integers = packed.step.flatten().bfloat16(), packed.integers

    def weights_only(x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x.bfloat16(), integers, step).float() + dense.bias

    return {
        FLOAT: dense,
        INT_MM: _ours(dense, "token"),
        "_int_mm, batch": _ours(dense, "batch"),
        "oneDNN, batch": _onednn(dense),
        "deprecated, batch": _deprecated(dense),
        "_weight_int8pack_mm": weights_only,
    }


def _ours(dense: nn.Linear, activations: Literal["token", "batch"]) -> Layer:
    layer: Layer = quantize_dynamic(nn.Sequential(dense), activations=activations, head=True)[0]
    return layer


def _onednn(dense: nn.Linear) -> Layer:
    weight = quantize_rows(dense.weight.detach())
    packed = torch.ops.onednn.qlinear_prepack(weight.integers, [TOKENS, dense.in_features])
    steps, zeros = weight.step.flatten(), torch.zeros(dense.out_features, dtype=torch.int64)

    def run(x: Tensor) -> Tensor:
        rounded = quantize_batch(x)
        assert rounded.zero is not None
        scale, zero = rounded.step.item(), int(rounded.zero.item()) + 128
        unsigned = rounded.integers.view(torch.uint8) ^ 128  # of signed inputs with a zero oneDNN has a slow loop alone
        after: tuple[object, ...] = (dense.bias, 1.0, 0, torch.float32, "none", [], "")
        product: Tensor = torch.ops.onednn.qlinear_pointwise(unsigned, scale, zero, packed, steps, zeros, *after)
        return product

    return run


def _deprecated(dense: nn.Linear) -> Layer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own end
        made = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            nn.Sequential(dense), {nn.Linear}, dtype=torch.qint8
        )
    layer: Layer = made[0]
    return layer


def _calls(layer: Layer, x: Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> None:
        for _ in range(CALLS):
            layer(x)

    return run


if __name__ == "__main__":
    main()
