"""How well do heads and units go without training? Scores of units beside each other, on real text.

All six layers of MiniLM are fine-tuned on STS-B by AdamW; then heads and feed-forward units are taken out of that one
model, at 25, 40, 60 and 73 % fewer multiply-adds of its layers, by each score with the output matrices solved anew, and
by `obs` with the other repairs. The seed of a pruning draws the 512 training rows that are looked at, and whatever the
score draws. Nothing was chosen on the validation rows that are reported.

Runs resume. Copies each record to ``results/structured/``; ``trainflat report results/structured`` draws them.

    python -m experiments.structured --data ../shared/data --out runs/structured --seeds 0,1,2
"""

import argparse
import os
from pathlib import Path
from typing import Any

from experiments.movement import run
from trainflat.pruning.structured import UNIT_SCORES

TASK = "stsb"
SPARSITIES = [0.25, 0.4, 0.6, 0.73]
ADAMW = {"name": "adamw", "lr": 5e-5, "weight_decay": 0.01}
METHODS: dict[str, dict[str, Any]] = {name: {"pruner": name} for name in UNIT_SCORES}
METHODS |= {f"obs-{repair}": {"pruner": "obs", "repair": repair} for repair in ("rescale", "none")}


def teaching() -> dict[str, Any]:
    """The run of the dense model, the same for all seeds of pruning."""
    training = {"epochs": 3, "batch_size": 32, "max_length": 128, "optimizer": ADAMW}
    return {
        "name": f"{TASK}-minilm",
        "task": TASK,
        "model": "minilm",
        "training": training,
        "protocol": {"name": "dense"},
    }


def pruning(method: str, seed: int, dense: str) -> dict[str, Any]:
    """The run of one method."""
    protocol = {"name": "post-training", "sparsities": SPARSITIES, "rows": 512, **METHODS[method]}
    latency = {"batches": [1], "lengths": [128]}
    shared = {"name": f"{TASK}-{method}", "task": TASK, "model": dense, "seed": seed}
    return shared | {"protocol": protocol, "evaluation": {"latency": latency}}


def main() -> None:
    """Runs the methods, the dense model first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/structured"))
    parser.add_argument("--results", type=Path, default=Path("results/structured"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    given = parser.parse_args()
    methods = given.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        parser.error(f"no method is called {unknown[0]!r}. Known: {', '.join(METHODS)}.")
    folder = run(teaching(), given.data, given.out, given.results)
    dense = os.path.relpath(folder / "stages" / "dense")
    for seed in map(int, given.seeds.split(",")):
        for method in methods:
            run(pruning(method, seed, dense), given.data, given.out, given.results)


if __name__ == "__main__":
    main()
