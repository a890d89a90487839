"""What a step of training costs under a gate: movement pruning, MLPruning, CoFi; and what the first needs in memory.

One sample is a whole training step of MiniLM-L6: forward, backward, fused AdamW, gradients freed; dropout on, float32,
batch 32 x 50 tokens, nine of ten weights gated away. Scores are a parameter group of the same optimizer. A threshold is
kept for 16 steps: that time is made of 15 steps that keep it and one that selects, as the exact form does every time.
Block movement masks blocks of 32 by 32 and feed-forward units, about a quarter of whose scores are below the threshold,
and MLPruning heads and rows, half of which are open; both choose at every step. CoFi's step has a teacher, as the step
beside it has: there the student learns from labels, here from the teacher's logits and, in the whole step, from its
layers, through gates whose draws leave some of everything and all sub-layers; scores, multipliers and the map are in
the same optimizer. The published form of movement (nn_pruning's MaskedLinear, topK, single weights) sorts the scores of
each matrix in every forward pass and keeps the mask in autograd's graph. Memory is counted in bytes of the prunable
weights: what the gate itself holds after a step, scores with what any trained parameter has (gradient, moments) apart.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.harness import Candidate, Sample, alternate
from benchmarks.result import Result, options
from benchmarks.workload import LR, backward, dense_step, minilm, random_rows
from trainflat.anatomy.hidden_states import depth_of, recorded_states
from trainflat.anatomy.params import prunable
from trainflat.distillation import Distillation, Layerwise, LayerwiseLoss, Shape
from trainflat.pruning.gates import BlockMovement, CoFi, HardMovement, LearnedMask, MLPruning
from trainflat.pruning.gates.structural import BOUND

BATCH, LENGTH, SPARSITY, REFRESH = 32, 50, 0.9, 16
DENSE, SORTED = "dense AdamW", "a sort per matrix in forward"
KEPT, EXACT = "hard movement, refreshed every 16 steps", "hard movement, exact"
BETWEEN = "hard movement, between two refreshes"
BLOCKS, RATIOS = "block movement", "MLPruning"
TAUGHT, COFI, LAYERS = "dense AdamW and a teacher's forward pass", "CoFi, logits alone", "CoFi"


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


def arrived(gate: LearnedMask | CoFi, step: int, mean: float = 0.0) -> Any:
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


def taught_step(rows: Mapping[str, Tensor]) -> Callable[[], None]:
    """A dense step, and a pass of a teacher that nobody listens to."""
    teacher, train = minilm().eval(), dense_step(rows)
    words = {name: tensor for name, tensor in rows.items() if name != "labels"}

    def step() -> None:
        with torch.no_grad():
            teacher(**words)
        train()

    return step


def cofi_step(rows: Mapping[str, Tensor], *, layers: bool) -> Callable[[], None]:
    """A step of CoFi's pruning; without ``layers`` the teacher's hidden states are not learned from."""
    teacher: Any = minilm().eval()
    model: Any = minilm()
    gate: Any = arrived(CoFi(model, schedule={"name": "constant", "start": 1}), 1)
    for name, score in gate.scores.items():
        if "sub-layer" in name:
            score.data.fill_(BOUND)  # one that is skipped would save time
    logits, shape = Distillation(weight=1.0, temperature=2.0), Shape(depth_of(model), model.config.hidden_size)
    matched = LayerwiseLoss(Layerwise(), shape, shape, next(model.parameters()))
    groups = [{**group, "params": [p for _, p in group["params"]]} for group in gate.param_groups()]
    optimizer = torch.optim.AdamW(
        [{"params": model.parameters()}, {"params": matched.parameters()}, *groups], lr=LR, fused=True
    )
    words = {name: tensor for name, tensor in rows.items() if name != "labels"}
    heard: Any = recorded_states if layers else lambda _: nullcontext([])

    def step() -> None:
        with torch.no_grad(), heard(teacher) as theirs:
            taught = teacher(**words).logits
        with gate.passes():
            with heard(model) as ours:
                said = model(**words).logits
            losses = logits.losses((said,), (taught,))
            if layers:
                chosen = [theirs[number] for number in matched.layers()]
                found, _ = matched(ours, chosen, gate.alive(), words["attention_mask"])
                losses = 0.1 * losses + 0.9 * found
            losses.mean().backward()  # type: ignore[no-untyped-call]
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
    """Times all of them, and counts what a gate holds."""
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
        TAUGHT: taught_step(rows),
        COFI: cofi_step(rows, layers=False),
        LAYERS: cofi_step(rows, layers=True),
        SORTED: sorting_step(rows),
    }
    taken = alternate({name: Candidate(step) for name, step in steps.items()}, settings.repeats)
    result.add(group, taken | {KEPT: amortised(taken[BETWEEN], taken[EXACT])})
    result.ratio(group, KEPT, DENSE, at_most=1.10)
    result.ratio(group, BLOCKS, DENSE, at_most=1.10)
    result.ratio(group, RATIOS, DENSE, at_most=1.10)
    result.ratio(group, LAYERS, TAUGHT, at_most=1.25)
    result.ratio(group, COFI, TAUGHT)
    result.ratio(group, EXACT, DENSE)
    result.ratio(group, SORTED, DENSE)
    scores, rest = held_bytes(rows)
    result.figure("scores", scores, "x the gated weights", at_most=1)
    result.figure("beside them: the copy of the weights", rest, "x the gated weights", at_most=1)
    result.finish()


if __name__ == "__main__":
    main()
