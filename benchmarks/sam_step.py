"""What a SAM step costs in AdamW steps: two passes instead of one, and what the perturbation adds.

One sample is a whole training step of MiniLM-L6: forward, backward, optimizer, gradients freed; dropout on, float32.
The base optimizer is torch's fused AdamW, also beneath our SAM. pytorch_optimizer's SAM is timed as it comes (a looping
AdamW beneath it) and with fused AdamW beneath it. The floor is two passes and one AdamW step, a little under 2 times.
"""

from collections.abc import Callable, Mapping

import pytorch_optimizer
import torch
from torch import Tensor

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import LR, backward, dense_step, minilm, random_rows
from trainflat.optim import SAM

# batch, tokens per row, bound on SAM / AdamW
SIZES = ((32, 50, 2.10), (4, 16, 2.6))
RHO = 0.05
ADAMW, OURS = "fused AdamW", "SAM"
PEER, PEER_FUSED = "pytorch_optimizer SAM", "pytorch_optimizer SAM, fused AdamW"


def sam_step(rows: Mapping[str, Tensor]) -> Callable[[], None]:
    """A step of ours."""
    model = minilm()
    optimizer = SAM(model.named_parameters(), base_optimizer=torch.optim.AdamW, rho=RHO, lr=LR, fused=True)

    def step() -> None:
        backward(model, rows)
        with optimizer.perturbed():
            optimizer.zero_grad()
            backward(model, rows)
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(rows: Mapping[str, Tensor], **base_options: bool) -> Callable[[], None]:
    """A step of pytorch_optimizer's, as its documentation shows it."""
    model = minilm()
    optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.AdamW, rho=RHO, lr=LR, **base_options)

    def closure() -> float:
        optimizer.zero_grad()
        return backward(model, rows)

    def step() -> None:
        closure()
        optimizer.step(closure)
        optimizer.zero_grad()

    return step


def main() -> None:
    """Times both sizes."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("sam_step", __doc__, settings)
    for batch, length, bound in SIZES:
        group, rows = f"batch {batch} x {length} tokens", random_rows(batch, length)
        print(f"{group}: warming up", flush=True)
        steps = {ADAMW: dense_step(rows), OURS: sam_step(rows), PEER: peer_step(rows)}
        steps[PEER_FUSED] = peer_step(rows, fused=True)
        result.add(group, alternate({name: Candidate(step) for name, step in steps.items()}, settings.repeats))
        result.ratio(group, OURS, ADAMW, at_most=bound)
        result.ratio(group, PEER, ADAMW)
        result.ratio(group, PEER_FUSED, ADAMW)
    result.finish()


if __name__ == "__main__":
    main()
