"""What a cycle of five steps of the cheap flat optimizers costs in AdamW steps.

One sample is five whole training steps of MiniLM-L6 (forward, backward, optimizer, gradients freed; dropout on,
float32, batch 32 x 50 tokens), because LookSAM with k = 5 and SAM with every = 5 take their second pass once in five
steps. All stand on torch's fused AdamW. The floor is the number of passes: 1.2 for LookSAM and every-5 SAM, 1.0 for
MSAM and S2-SAM. Bounds are on the median of the ratios round by round; beside it their quartiles.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import LR, backward, dense_step, minilm, random_rows
from trainflat.optim import OPTIMIZERS, FlatOptimizer

BATCH, LENGTH, CYCLE = 32, 50, 5
GROUP, ADAMW = f"batch {BATCH} x {LENGTH} tokens, {CYCLE} steps", "fused AdamW"
# name in recipes, options, bound on its time / AdamW's
CHEAP = {
    f"LookSAM, k={CYCLE}": ("looksam", {"k": CYCLE}, 1.35),
    "MSAM": ("msam", {}, 1.10),
    "S2-SAM": ("s2sam", {}, 1.10),
    f"SAM, every={CYCLE}": ("sam", {"every": CYCLE}, 1.30),
}


def flat_step(rows: Mapping[str, Tensor], name: str, **chosen: float) -> Callable[[], None]:
    """A step of ours on a model of its own, with the passes that it asks for."""
    model = minilm()
    optimizer = OPTIMIZERS.make(name, model.named_parameters(), lr=LR, **chosen)
    assert isinstance(optimizer, FlatOptimizer)

    def step() -> None:
        if optimizer.first_pass:
            backward(model, rows)
        if optimizer.second_pass:
            with optimizer.perturbed():
                optimizer.zero_grad()
                backward(model, rows)
        optimizer.step()
        optimizer.zero_grad()

    return step


def cycle(step: Callable[[], None]) -> Candidate:
    """Five steps as one sample: whole cycles, wherever it begins."""

    def run() -> None:
        for _ in range(CYCLE):
            step()

    return Candidate(run)


def main() -> None:
    """Times all of them side by side."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result, rows = Result("flat_steps", __doc__, settings), random_rows(BATCH, LENGTH)
    print(f"{GROUP}: warming up", flush=True)
    steps = {ADAMW: dense_step(rows)}
    steps |= {label: flat_step(rows, name, **chosen) for label, (name, chosen, _) in CHEAP.items()}
    result.add(GROUP, alternate({label: cycle(step) for label, step in steps.items()}, settings.repeats))
    for label, (_, _, bound) in CHEAP.items():
        result.ratio(GROUP, label, ADAMW, at_most=bound)
    result.finish()


if __name__ == "__main__":
    main()
