"""The exact global cut: which 90 % of BERT-base's 84.9 million encoder weights are the smallest.

Random normal weights with standard deviation 0.02 in the 72 matrices of BERT-base's encoder. The peer is
``torch.nn.utils.prune.global_unstructured`` with ``L1Unstructured``; modules that were not pruned before, on the same
weights, are made for each call outside the time. ``select()`` is the cut with its masks; ``prune()`` also writes the
zeros, as the peer does. Both keep the same weights (ties at the threshold aside), checked before the times. Extra
memory is the peak of resident memory beyond that before the call, in a process of its own.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.harness import Candidate, alternate
from benchmarks.memory import extra_peak
from benchmarks.result import Result, options
from trainflat.pruning import MagnitudePruner
from trainflat.pruning.cut import Cut, find_cut
from trainflat.pruning.keys import Keys

LAYERS, HIDDEN, INNER = 12, 768, 3072
SPARSITY = 0.9
THRESHOLD, OURS, OURS_WRITTEN = "the threshold alone", "MagnitudePruner.select()", "MagnitudePruner.prune()"
PEER = "torch global_unstructured"


def encoder(weights: list[torch.Tensor] | None = None) -> nn.Sequential:
    """Linear layers with the shapes of BERT-base's encoder, on given weights (shared, not copied) or on random ones."""
    shapes = [(HIDDEN, HIDDEN)] * 4 + [(INNER, HIDDEN), (HIDDEN, INNER)]
    generator = torch.Generator().manual_seed(0)
    modules = []
    for index, shape in enumerate(shapes * LAYERS):
        module = nn.Linear(shape[1], shape[0], bias=False, device="meta")
        weight = weights[index] if weights else torch.empty(shape).normal_(std=0.02, generator=generator)
        module.weight = nn.Parameter(weight, requires_grad=False)
        modules.append(module)
    return nn.Sequential(*modules)


def matrices(model: nn.Sequential) -> list[torch.Tensor]:
    """The weights, in order."""
    return [p.detach() for p in model.parameters()]


def peer(model: nn.Sequential) -> None:
    """torch's own global cut; it also replaces the weights by ``weight_orig * weight_mask``."""
    pairs = [(module, "weight") for module in model]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=SPARSITY)


def threshold(pruner: MagnitudePruner) -> Cut:
    """What the cut finds before any mask is written."""
    keys = Keys(pruner.scores())
    return find_cut(keys, round(SPARSITY * keys.count))


def ours_on_whole_weights(weights: list[torch.Tensor]) -> Candidate:
    """``prune()``, with the zeros of the call before taken back outside the time."""
    model = encoder([w.clone() for w in weights])

    def prepare() -> None:
        for p, w in zip(model.parameters(), weights, strict=True):
            p.copy_(w)

    return Candidate(MagnitudePruner(model, sparsity=SPARSITY).prune, prepare)


def peer_on_new_modules(weights: list[torch.Tensor]) -> Candidate:
    """The peer, on modules that were not pruned before; their weights are shared, for it leaves those alone."""
    models: list[nn.Sequential] = []
    return Candidate(lambda: peer(models.pop()), lambda: models.append(encoder(weights)))


def ours_in_memory() -> Callable[[], object]:
    """For the measurement of memory."""
    select: Callable[[], object] = MagnitudePruner(encoder(), sparsity=SPARSITY).select
    return select


def peer_in_memory() -> Callable[[], object]:
    """For the measurement of memory."""
    model = encoder()
    return lambda: peer(model)


def check_agreement(weights: list[torch.Tensor]) -> None:
    """Both keep the same weights, or there is nothing to compare.

    Among 85 million floats several equal the threshold, and either may keep any of those. So what must agree is how
    many go, and how large the largest that goes and the smallest that stays are.

    Raises:
        RuntimeError: they do not agree.
    """
    theirs, ours = encoder(weights), encoder([w.clone() for w in weights])
    peer(theirs)
    MagnitudePruner(ours, sparsity=SPARSITY).prune()
    edges = [
        edge(weights, [module.get_buffer("weight_mask").bool() for module in theirs]),
        edge(weights, [w != 0 for w in matrices(ours)]),
    ]
    if edges[0] != edges[1]:
        raise RuntimeError(f"the two cuts keep different weights: {edges[0]} and {edges[1]} (gone, largest, smallest).")


def edge(weights: list[torch.Tensor], kept: list[torch.Tensor]) -> tuple[int, float, float]:
    """How many weights are dropped, the largest size among them, and the smallest size among the kept."""
    pairs = list(zip(weights, kept, strict=True))
    dropped = sum(int((~keep).sum()) for keep in kept)
    return dropped, max(float(w[~k].abs().max()) for w, k in pairs), min(float(w[k].abs().min()) for w, k in pairs)


def main() -> None:
    """Agreement, times, memory."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("cut", __doc__, settings)
    weights = matrices(encoder())
    print("checking that both cuts agree (about half a minute)", flush=True)
    check_agreement(weights)
    group = "90 % of 84.9M weights"
    pruner = MagnitudePruner(encoder(weights), sparsity=SPARSITY)
    candidates = {
        THRESHOLD: Candidate(lambda: threshold(pruner)),
        OURS: Candidate(pruner.select),
        OURS_WRITTEN: ours_on_whole_weights(weights),
        PEER: peer_on_new_modules(weights),
    }
    result.add(group, alternate(candidates, settings.repeats))
    result.ratio(group, PEER, OURS, at_least=100)
    result.ratio(group, PEER, OURS_WRITTEN)
    result.ratio(group, PEER, THRESHOLD)
    print("measuring memory", flush=True)
    result.figure("extra memory of select()", extra_peak("benchmarks.cut:ours_in_memory") / 2**20, "MiB", at_most=64)
    result.figure("extra memory of global_unstructured", extra_peak("benchmarks.cut:peer_in_memory") / 2**20, "MiB")
    result.finish()


if __name__ == "__main__":
    main()
