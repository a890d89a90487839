"""What int8 linear layers save in inference.

One sample is one forward pass of BERT-base's shape (random weights, 12 layers, attention of the fused kind) under a
classification head, over 1 x 128 tokens without padding, in inference mode. Dense: PyTorch in float32. Token and batch:
`trainflat.quantization.quantize_dynamic`, which rounds the inputs of a layer row by row or all together; encoder and
pooler are int8. Deprecated: torch's own engine, `torch.ao.quantization.quantize_dynamic`. Dequantized: ours without the
integer kernel, as on processors that have none. The deviation is the largest over the logits of 8 rows, relative to
the largest logit; with random weights it says nothing about accuracy on a task.
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import bert_base, random_rows
from trainflat.quantization import quantize_dynamic, without_integer_kernel

BATCH, LENGTH = 1, 128
DENSE, TOKEN, BATCHED = "dense float32", "int8, token", "int8, batch"
DEPRECATED, DEQUANTIZED = "torch.ao int8", "int8, dequantized"
Run = Callable[[dict[str, Tensor]], Tensor]


def main() -> None:
    """Times all five candidates; with 2 threads, torch's deprecated engine is the bound."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("int8", __doc__, settings)
    runs, group = _runs(), f"BERT-base, {BATCH} x {LENGTH} tokens, {settings.threads} threads"
    rows = _inputs(BATCH)
    result.add(group, alternate({name: Candidate(partial(run, rows)) for name, run in runs.items()}, settings.repeats))
    result.ratio(group, DENSE, TOKEN, at_least=1.9)
    for name in (BATCHED, DEPRECATED, DEQUANTIZED):
        result.ratio(group, DENSE, name)
    result.ratio(group, DEPRECATED, TOKEN)
    _add_deviations(result, runs)
    result.finish()


def _runs() -> dict[str, Run]:
    dense = bert_base()
    token = quantize_dynamic(dense)
    return {
        DENSE: _forward(dense),
        TOKEN: _forward(token),
        BATCHED: _forward(quantize_dynamic(dense, activations="batch")),
        DEPRECATED: _forward(_deprecated(dense)),
        DEQUANTIZED: without_integer_kernel()(_forward(token)),
    }


def _forward(model: nn.Module) -> Run:
    @torch.inference_mode()
    def run(rows: dict[str, Tensor]) -> Tensor:
        logits: Tensor = model(**rows).logits
        return logits

    return run


def _deprecated(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own end
        made: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {nn.Linear}, dtype=torch.qint8
        )
    return made


def _inputs(batch: int) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in random_rows(batch, LENGTH).items() if name != "labels"}


def _add_deviations(result: Result, runs: dict[str, Run]) -> None:
    rows = _inputs(8)
    dense = runs[DENSE](rows)
    for name in (TOKEN, BATCHED, DEPRECATED):
        off = float((runs[name](rows) - dense).abs().max() / dense.abs().max())
        result.figure(f"{name}: deviation of logits", off, "of the largest")


if __name__ == "__main__":
    main()
