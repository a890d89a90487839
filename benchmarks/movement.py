"""What movement pruning costs in a training step, hard by weights and soft by blocks, and the former in memory.

One sample is a whole training step of MiniLM-L6: forward, backward, fused AdamW, gradients freed; dropout on, float32,
batch 32 x 50 tokens, nine of ten weights gated away. Scores are a parameter group of the same optimizer. A threshold is
kept for 16 steps: that time is made of 15 steps that keep it and one that selects, as the exact form does every time.
Block movement masks blocks of 32 by 32 and feed-forward units, about a quarter of whose scores are below the threshold,
and MLPruning heads and rows, half of which are open; both choose at every step.
The published form (nn_pruning's
MaskedLinear, topK, single weights) sorts the scores of each matrix in every forward pass and keeps the mask in
autograd's graph. Memory is counted in bytes of the prunable weights: what the gate itself holds after a step, scores
with what any trained parameter has (gradient, moments) apart.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.harness import Candidate, Sample, alternate
from benchmarks.result import Result, options
from benchmarks.workload import LR, backward, dense_step, minilm, random_rows
from trainflat.anatomy.params import prunable
from trainflat.pruning.gates import BlockMovement, HardMovement, LearnedMask, MLPruning

BATCH, LENGTH, SPARSITY, REFRESH = 32, 50, 0.9, 16
DENSE, SORTED = "dense AdamW", "a sort per matrix in forward"
KEPT, EXACT = "hard movement, refreshed every 16 steps", "hard movement, exact"
BETWEEN = "hard movement, between two refreshes"
BLOCKS, RATIOS = "block movement", "MLPruning"


class TopByIndex(torch.autograd.Function):
    """The published mask: sorts, writes ones and zeros by index, and lets the gradient through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, kept: float) -> Tensor:
        mask = scores.clone()
        order = scores.flatten().sort(descending=True).indices
        count = int(kept * scores.numel())
        flat = mask.flatten()
        flat[order[count:]] = 0
        flat[order[:count]] = 1
        return flat.view(scores.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def arrived(gate: LearnedMask, step: int, mean: float = 0.0) -> Any:
    """A gate whose schedule has arrived, its scores apart from each other."""
    gate.begin(10**9)
    generator = torch.Generator().manual_seed(0)
    for score in gate.scores.values():
        if score.dim():  # not those of which a layer has one
            score.data.normal_(mean, generator=generator)
    gate.advance(step)
    return gate


def gate_on(model: nn.Module, refresh: int) -> HardMovement:
    """Hard movement at its sparsity."""
    late = {"name": "constant", "start": 1}
    gate: HardMovement = arrived(HardMovement(model, sparsity=SPARSITY, schedule=late, refresh=refresh), refresh)
    return gate


def by_blocks(model: nn.Module) -> LearnedMask:
    """Block movement at its threshold, which a quarter of the scores are below."""
    gate: LearnedMask = arrived(BlockMovement(model, schedule={"name": "constant", "start": 1}), 1, mean=-1.5)
    return gate


def by_ratios(model: nn.Module) -> LearnedMask:
    """MLPruning with half of the units open."""
    gate: LearnedMask = arrived(MLPruning(model, target_sparsity=0.7, first_ratio=0.0), 1)
    return gate


def gated_step(rows: Mapping[str, Tensor], made: Callable[[nn.Module], LearnedMask]) -> Callable[[], None]:
    """A step of ours."""
    model = minilm()
    gate = made(model)
    groups: list[dict[str, Any]] = [{"params": model.parameters()}, {"params": gate.scores.values(), "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)

    def step() -> None:
        with gate.passes():
            backward(model, rows)
        optimizer.step()
        optimizer.zero_grad()
        gate.advance(gate.step + 1)

    return step


def sorting_step(rows: Mapping[str, Tensor]) -> Callable[[], None]:
    """A step as published."""
    model = minilm()
    weights = prunable(model)
    scores = {name: nn.Parameter(torch.randn_like(w)) for name, w in weights.items()}
    groups: list[dict[str, Any]] = [{"params": model.parameters()}, {"params": scores.values(), "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)

    def step() -> None:
        masked = {
            n: w * TopByIndex.apply(scores[n], 1 - SPARSITY)  # type: ignore[no-untyped-call]
            for n, w in weights.items()
        }
        functional_call(model, masked, kwargs=dict(rows)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def amortised(between: Sequence[Sample], exact: Sequence[Sample]) -> list[Sample]:
    """Steps of which one in sixteen selects, round by round."""
    return [
        Sample((a.seconds * (REFRESH - 1) + b.seconds) / REFRESH, max(a.foreign, b.foreign), max(a.tries, b.tries))
        for a, b in zip(between, exact, strict=True)
    ]


def held_bytes(rows: Mapping[str, Tensor]) -> tuple[float, float]:
    """What a gate holds after a step, in bytes of the gated weights: scores, and all the rest."""
    model = minilm()
    gate = gate_on(model, REFRESH)
    with gate.passes():
        backward(model, rows)
    of_weights = sum(w.nbytes for w in gate.weights.values())
    scores = sum(score.nbytes for score in gate.scores.values())
    rest = sum(kept.nbytes for kept in gate.swap.copies.values())
    return scores / of_weights, rest / of_weights


def main() -> None:
    """Times all six, and counts what a gate holds."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("movement", __doc__, settings)
    group, rows = f"batch {BATCH} x {LENGTH} tokens", random_rows(BATCH, LENGTH)
    steps = {
        DENSE: dense_step(rows),
        BETWEEN: gated_step(rows, partial(gate_on, refresh=10**9)),
        EXACT: gated_step(rows, partial(gate_on, refresh=1)),
        BLOCKS: gated_step(rows, by_blocks),
        RATIOS: gated_step(rows, by_ratios),
        SORTED: sorting_step(rows),
    }
    taken = alternate({name: Candidate(step) for name, step in steps.items()}, settings.repeats)
    result.add(group, taken | {KEPT: amortised(taken[BETWEEN], taken[EXACT])})
    result.ratio(group, KEPT, DENSE, at_most=1.10)
    result.ratio(group, BLOCKS, DENSE, at_most=1.10)
    result.ratio(group, RATIOS, DENSE, at_most=1.10)
    result.ratio(group, EXACT, DENSE)
    result.ratio(group, SORTED, DENSE)
    scores, rest = held_bytes(rows)
    result.figure("scores", scores, "x the gated weights", at_most=1)
    result.figure("beside them: the copy of the weights", rest, "x the gated weights", at_most=1)
    result.finish()


if __name__ == "__main__":
    main()
