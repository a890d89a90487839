"""How well do heads and units go without training? Scores of units beside each other, on real text.

All six layers of MiniLM are fine-tuned by AdamW on STS-B (learning rate and epochs are those that
``results/sweeps/stsb.json`` chose on held-out rows) and on 20,000 rows of SST-2; then heads and feed-forward units are
taken out of that one model, at 25, 40, 60, 73 and 80 % fewer multiply-adds of its layers: by each score with the output
matrices solved anew, by Fisher information with rescaled units, as Kwon et al. do it (``kwon``), and by `obs` with the
other repairs. The seed of a pruning draws the 512 training rows that are looked at, and whatever the score draws.
Nothing was chosen on the validation rows that are reported. ``obs-retrained``, where asked for, trains the dense model
for two epochs more and each smaller one for two epochs, with the dense one as teacher.

Runs resume. Copies each record to ``results/structured/``; ``python -m experiments.structured_table`` reads them.

    python -m experiments.structured --data ../shared/data --out runs/structured --tasks stsb,sst2 --seeds 0,1,2
"""

import argparse
import os
from pathlib import Path
from typing import Any

from experiments.movement import run
from trainflat.pruning.structured import UNIT_SCORES

SPARSITIES = [0.25, 0.4, 0.6, 0.73, 0.8]
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stsb": ({"name": "stsb"}, {"epochs": 5, "optimizer": {"name": "adamw", "lr": 2e-4}}),
    "sst2": ({"name": "sst2", "rows": 20_000}, {"epochs": 3, "optimizer": {"name": "adamw", "lr": 1e-4}}),
}
METHODS: dict[str, dict[str, Any]] = {name: {"pruner": name} for name in UNIT_SCORES}
METHODS |= {"kwon": {"pruner": "fisher", "repair": "rescale"}}
METHODS |= {f"obs-{repair}": {"pruner": "obs", "repair": repair} for repair in ("rescale", "none")}
RETRAINED = "obs-retrained"
MOST = [0.73, 0.8]  # sizes that are trained again
# Times would be those of a busy machine; ``structured_table --time`` takes them.
NOT_TIMED: dict[str, Any] = {"latency": {"batches": []}}


def teaching(task: str) -> dict[str, Any]:
    """Describes the run of the dense model, the same for all seeds of pruning."""
    section, training = TASKS[task]
    training = {"batch_size": 32, "max_length": 128, **training}
    shared = {"name": f"{task}-minilm", "task": section, "model": "minilm", "evaluation": NOT_TIMED}
    return shared | {"training": training, "protocol": {"name": "dense"}}


def pruning(task: str, method: str, seed: int, dense: str) -> dict[str, Any]:
    """Describes the run of one method."""
    shared = {"name": f"{task}-{method}", "task": TASKS[task][0], "model": dense, "seed": seed, "evaluation": NOT_TIMED}
    if method == RETRAINED:
        training = {"batch_size": 32, "max_length": 128, **TASKS[task][1], "epochs": 2}
        return shared | {"training": training, "protocol": {"name": "structured", "sparsities": MOST, "rows": 512}}
    protocol = {"name": "post-training", "sparsities": SPARSITIES, "rows": 512, **METHODS[method]}
    return shared | {"protocol": protocol}


def main() -> None:
    """Runs the methods, the dense model first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/structured"))
    parser.add_argument("--results", type=Path, default=Path("results/structured"))
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join([*METHODS, RETRAINED])}")
    given = parser.parse_args()
    methods = given.methods.split(",")
    if unknown := [method for method in methods if method not in [*METHODS, RETRAINED]]:
        parser.error(f"no method is called {unknown[0]!r}. Known: {', '.join([*METHODS, RETRAINED])}.")
    for task in given.tasks.split(","):
        folder = run(teaching(task), given.data, given.out, given.results)
        dense = os.path.relpath(folder / "stages" / "dense")
        for seed in map(int, given.seeds.split(",")):
            for method in methods:
                run(pruning(task, method, seed, dense), given.data, given.out, given.results)


if __name__ == "__main__":
    main()
