"""What a loss plane costs in bare forward passes: finding its basis, moving the weights, and putting them back.

One sample is a whole plane of 3 x 3 points through three models of MiniLM-L6 (its own weights, and two random ones
around them): 12 passes over 4 micro-batches of 32 x 50 tokens, float32, against as many forward passes in evaluation
mode without gradients. All 22.7 million weights move. A finer grid or more rows share the setting up further. For both,
freed memory stays with the process: whether glibc hands it back to the system after each layer, which makes a forward
pass up to 16 % slower, hangs on where in memory other things happen to lie.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness import Candidate, alternate
from benchmarks.result import Result, options
from benchmarks.workload import minilm, random_rows
from trainflat.sharpness import Objective, loss_plane

BATCH, LENGTH, BATCHES, SIZE = 32, 50, 4, 3
NOISE = 0.01  # standard deviation of what the random models differ by; time does not depend on it
BARE, PLANE = "bare forward passes", "loss plane"


def keep_freed_memory() -> None:
    """Has glibc hand nothing smaller than 32 MiB back to the system; elsewhere it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its largest


def bare_passes(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Callable[[], None]:
    """As many forward passes as the plane has: its grid and the three models."""

    @torch.no_grad()
    def run() -> None:
        for _ in range(SIZE**2 + 3):
            for batch in batches:
                model(**batch).loss.item()

    return run


def whole_plane(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Callable[[], object]:
    """The plane through the model and two others around it."""
    generator = torch.Generator().manual_seed(0)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    points = {"init": start, "one": moved(start, generator), "other": moved(start, generator)}
    objective = Objective(model, batches)
    return lambda: loss_plane(objective, points, size=SIZE)


def moved(state: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A state with noise on every weight."""
    noise = {name: torch.randn(w.shape, generator=generator) for name, w in state.items() if w.is_floating_point()}
    return {name: w + NOISE * noise[name] if name in noise else w for name, w in state.items()}


def main() -> None:
    """Times both."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    result = Result("plane", __doc__, settings)
    group = f"{SIZE} x {SIZE} points, {BATCHES} batches of {BATCH} x {LENGTH} tokens"
    print(f"{group}: warming up", flush=True)
    batches = [random_rows(BATCH, LENGTH, seed) for seed in range(BATCHES)]
    runs = {BARE: bare_passes(minilm().eval(), batches), PLANE: whole_plane(minilm().eval(), batches)}
    result.add(group, alternate({name: Candidate(run) for name, run in runs.items()}, settings.repeats))
    result.ratio(group, PLANE, BARE, at_most=1.05)
    result.finish()


if __name__ == "__main__":
    main()
