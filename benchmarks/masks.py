"""What holding a fixed mask costs in a training step.

One sample is a whole training step of MiniLM-L6: forward, backward, fused AdamW, gradients freed; dropout on, float32,
batch 32 x 50 tokens. The masked step also masks the gradients before the optimizer's step and the weights after it, at
90 % sparsity over the encoder (the cost does not depend on the sparsity). ``--repeats`` counts threefold.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import adamw, backward, dense_step, minilm, random_rows
from trainflat.pruning import MagnitudePruner

BATCH, LENGTH = 32, 50
DENSE, MASKED = "dense step", "step under a fixed mask"


def masked_step(rows: Mapping[str, Tensor]) -> Callable[[], None]:
    """The same step, holding nine of ten weights of the encoder at zero."""
    model = minilm()
    optimizer = adamw(model)
    held = MagnitudePruner(model, sparsity=0.9).prune().hold(model)

    def step() -> None:
        backward(model, rows)
        held.mask_gradients()
        optimizer.step()
        held.mask_weights()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Times both."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("masks", __doc__, settings)
    group, rows = f"batch {BATCH} x {LENGTH} tokens", random_rows(BATCH, LENGTH)
    # A bound of 3 % wants more rounds than one of 10 %: single steps differ by more than that.
    rounds = settings.repeats * 3
    candidates = {DENSE: Candidate(dense_step(rows)), MASKED: Candidate(masked_step(rows))}
    result.add(group, alternate(candidates, rounds))
    result.ratio(group, MASKED, DENSE, at_most=1.03)
    result.finish()


if __name__ == "__main__":
    main()
