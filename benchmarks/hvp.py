"""What a Hessian-vector product costs in gradients.

One sample is one gradient of the mean loss of MiniLM-L6 over 32 x 50 tokens, or one product with its Hessian; dropout
off, float32, all 22.7 million weights. Held: the graph of the gradient was built before, and a product is one more
backward pass through it. Rebuilt: the graph is built for the product, as for data of several batches. Differences: two
gradients at displaced weights. The floor is about two gradients.
"""

from contextlib import ExitStack

import torch

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import minilm, random_rows
from trainflat.sharpness import Objective

BATCH, LENGTH = 32, 50
GRADIENT, HELD, REBUILT, DIFFERENCES = "gradient", "product, held", "product, rebuilt", "product, differences"


def main() -> None:
    """Times all four."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("hvp", __doc__, settings)
    group, rows = f"batch {BATCH} x {LENGTH} tokens", random_rows(BATCH, LENGTH)
    # Differences displace their weights, which makes a graph that is held on the same weights unusable.
    still, moving = (Objective(minilm(), [rows]) for _ in range(2))
    vector = still.random_direction(torch.Generator().manual_seed(0))
    with ExitStack() as stack:
        held = stack.enter_context(still.products())
        stack.enter_context(moving.measuring())
        candidates = {
            GRADIENT: Candidate(still.gradient),
            HELD: Candidate(lambda: held(vector)),
            REBUILT: Candidate(lambda: still.hvp(vector)),
            DIFFERENCES: Candidate(lambda: moving.hvp_by_differences(vector)),
        }
        result.add(group, alternate(candidates, settings.repeats))
    result.ratio(group, HELD, GRADIENT, at_most=2.5)
    result.ratio(group, REBUILT, GRADIENT)
    result.ratio(group, DIFFERENCES, GRADIENT)
    result.finish()


if __name__ == "__main__":
    main()
