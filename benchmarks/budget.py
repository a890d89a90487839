"""How well a latency budget is met: the speed-up that was asked for against the one that is measured.

One sample is one forward pass by PyTorch over rows of 128 tokens without padding. MiniLM-L6 has its pre-trained
weights, BERT-base's shape random ones; heads and feed-forward units are chosen by magnitude for two and four times the
dense model's speed, and removed. The uniform model beside each has as many parameters, but its layers are alike: the
head count nearest to the chosen model's share, then as many feed-forward units as the rest allows, whatever multiple
that is. Weights do not change the time. Dense, chosen and uniform models alternate in one process.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Candidate, alternate, ratio, seconds
from benchmarks.result import Result, options
from benchmarks.workload import bert_base, minilm, random_rows
from trainflat.anatomy import Anatomy, anatomy_of
from trainflat.pruning.structured import Kept, prune_structure, shrink
from trainflat.pruning.structured.budgets import Latency
from trainflat.pruning.structured.counting import count
from trainflat.pruning.structured.latency import measure_table

LENGTH = 128
SPEEDUPS = (2.0, 4.0)
WITHIN = 10.0  # % of what was asked for


def main() -> None:
    """Both models at both batches."""
    settings = options(__doc__).parse_args()
    torch.set_num_threads(settings.threads)
    result = Result("budget", __doc__, settings)
    for name, model in {"MiniLM-L6": minilm().eval(), "BERT-base": bert_base()}.items():
        for batch in (1, 32):
            group = f"{name}, {batch} x {LENGTH} tokens, {settings.threads} threads"
            print(f"{group}: timing the widths of its sub-layers", flush=True)
            with torch.no_grad():
                _measure(result, group, _Chosen.of(model, batch))
    result.finish()


@dataclass(frozen=True)
class _Chosen:
    """Holds the dense model, and by speed-up the chosen models and the uniform ones."""

    batch: int
    dense: nn.Module
    chosen: dict[float, nn.Module]
    uniform: dict[float, nn.Module]

    @classmethod
    def of(cls, dense: nn.Module, batch: int) -> "_Chosen":
        table, found = measure_table(dense, batch, LENGTH), cls(batch, dense, {}, {})
        for speedup in SPEEDUPS:
            pruned = prune_structure(dense, [], Latency(table, speedup=speedup), score="magnitude", repair="none")
            found.chosen[speedup] = shrink(dense, pruned.kept).eval()
            found.uniform[speedup] = shrink(dense, uniform(dense, pruned.kept)).eval()
        return found


def _measure(result: Result, group: str, models: _Chosen) -> None:
    rows = {name: tensor for name, tensor in random_rows(models.batch, LENGTH).items() if name != "labels"}
    candidates = {"dense": _passes(models.dense, rows)}
    for speedup in SPEEDUPS:
        candidates |= {
            f"chosen for {speedup:g} times": _passes(models.chosen[speedup], rows),
            f"uniform for {speedup:g} times": _passes(models.uniform[speedup], rows),
        }
    taken = alternate(candidates, result.settings.repeats)
    result.add(group, taken)
    for speedup in SPEEDUPS:
        name = f"chosen for {speedup:g} times"
        result.ratio(group, "dense", name)
        reached = ratio(seconds(taken["dense"]), seconds(taken[name])).value
        result.figure(f"{group}: {name}", 100 * abs(reached / speedup - 1), "% apart", at_most=WITHIN)
        result.ratio(group, f"uniform for {speedup:g} times", name, at_least=1.0)


def _passes(model: nn.Module, rows: dict[str, Any]) -> Candidate:
    return Candidate(lambda: model(**rows))


def uniform(model: nn.Module, kept: Kept) -> Kept:
    """Keeps the same number of heads and of units in every layer, with as many parameters as another choice."""
    anatomy = anatomy_of(model)
    heads = round(sum(len(layer.kept_heads()) for layer in kept.layers) / len(kept.layers))
    allowed = count(kept, anatomy).encoder
    low, high = 0, anatomy.layers[0].feed_forward.output.inputs
    while low < high:  # the most units with at most as many parameters
        middle = (low + high + 1) // 2
        fits = count(_alike(anatomy, heads, middle), anatomy).encoder <= allowed
        low, high = (middle, high) if fits else (low, middle - 1)
    return _alike(anatomy, heads, low)


def _alike(anatomy: Anatomy, heads: int, units: int) -> Kept:
    left = {"head": heads, "feed-forward unit": units}
    gone = [unit for kind, most in left.items() for unit in anatomy.units(kind) if unit.index >= most]
    return Kept.all(anatomy).without(gone)


if __name__ == "__main__":
    main()
