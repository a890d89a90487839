"""Does a flat teacher compress better? Structure that is learned with a teacher by AdamW and one by SAM, on real text.

All six layers of MiniLM are fine-tuned on STS-B or on 20,000 rows of SST-2 by AdamW and by SAM (learning rates and
epochs as in ``experiments.structured``). SAM's rho is chosen on a tenth of the training rows, held out, by the mean
score of its models after 73 and 80 % of the multiply-adds were taken out by `obs` without training: what is asked is
how they compress, and CoFi at every rho would take days. Then each teacher teaches CoFi to 60, 80 and 95 % fewer
parameters of the layers, block movement to a quarter of the weights, and GRAIN to a fifth of the units' parameters;
each smaller model is trained once more, at one of two rates, chosen on held-out rows. What post-training makes of the
same teacher at the same sizes, `obs` with least squares and magnitude without repair, stands beside it. Pruning itself
is by AdamW, so that only teachers differ.

``choose`` writes ``results/learned/rho-TASK.json``, which the others read. Runs resume. Copies each record to
``results/learned/``; ``python -m experiments.learned_table`` reads them.

    python -m experiments.learned choose --data ../shared/data --out runs/learned --tasks stsb
    python -m experiments.learned run --data ../shared/data --out runs/learned --tasks stsb --seeds 0,1,2
"""

import argparse
import os
from pathlib import Path
from statistics import fmean
from typing import Any

import trainflat
from experiments.movement import run
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.files import read_json, write_json
from trainflat.records.run import Record

RADII = (0.001, 0.002, 0.005, 0.01, 0.02)
MOST = [0.73, 0.8]  # shares of the multiply-adds after which rho is judged
SIZES = [0.6, 0.8, 0.95]  # shares of the layers' parameters that go
# Rows, learning rate, and epochs of the teacher, of pruning and of the last training.
TASKS: dict[str, tuple[dict[str, Any], float, tuple[int, int, int]]] = {
    "stsb": ({"name": "stsb"}, 2e-4, (5, 12, 4)),
    "sst2": ({"name": "sst2", "rows": 20_000}, 1e-4, (3, 5, 2)),
}
TEACHERS = ("adamw", "sam")
# Gates begin after a twelfth, and the target rises for a third: over 720 steps of STS-B's 2160.
COFI = {"name": "cofi", "schedule": {"name": "linear", "start": 1 / 12, "hold": 7 / 12}}
BLOCK = {
    "name": "block-movement",
    "target_sparsity": 0.75,
    "score_lr": 0.0667,
    "schedule": {"name": "linear", "start": 0.2, "hold": 0.2},
}
LEARNED: dict[str, dict[str, Any]] = {
    f"cofi-{size:.0%}".rstrip("%"): COFI | {"target_sparsity": size} for size in SIZES
}
LEARNED["block-75"] = BLOCK
LEARNED["grain-80"] = {"name": "grain", "target_sparsity": 0.8}
AFTERWARDS: dict[str, dict[str, Any]] = {
    "obs": {"pruner": "obs"},
    "magnitude": {"pruner": "magnitude", "repair": "none"},
}
METHODS = [*LEARNED, *AFTERWARDS]


def shared(task: str, name: str, model: str, seed: int, **more: Any) -> dict[str, Any]:
    """Returns the part of a recipe that all runs on a task share, without latency, which a busy machine distorts."""
    described = {"name": f"{task}-{name}", "task": TASKS[task][0], "model": model, "seed": seed}
    return described | {"evaluation": {"latency": {"batches": []}}} | more


def training(task: str, epochs: float, optimizer: dict[str, Any]) -> dict[str, Any]:
    """Describes one training."""
    options = {"lr": TASKS[task][1], "weight_decay": 0.0} | optimizer
    return {"epochs": epochs, "batch_size": 32, "max_length": 128, "precision": "bf16", "optimizer": options}


def teaching(task: str, teacher: str, rho: float, seed: int) -> dict[str, Any]:
    """Describes the run of a teacher."""
    optimizer: dict[str, Any] = {"name": "sam", "rho": rho} if teacher == "sam" else {"name": "adamw"}
    own = training(task, TASKS[task][2][0], optimizer)
    return shared(task, f"teacher-{teacher}", "minilm", seed, training=own, protocol={"name": "dense"})


def pruning(task: str, method: str, teacher: str, folder: str, seed: int) -> dict[str, Any]:
    """Describes the run of one method with the teacher in a folder."""
    name = f"{method}-{teacher}"
    if method in AFTERWARDS:
        protocol = {"name": "post-training", "budget": "parameters", "sparsities": SIZES, **AFTERWARDS[method]}
        return shared(task, name, folder, seed, protocol=protocol)
    _, rate, (_, epochs, last) = TASKS[task]
    taught = {"distillation": {"teacher": folder, "weight": 1.0, "temperature": 2.0}, "layerwise": {"weight": 0.9}}
    again = {"epochs": last, "lr": [rate / 2, rate], "schedule": "constant"}
    protocol = {"name": "structured", "method": LEARNED[method], "finetune": again}
    return shared(
        task, name, "minilm", seed, training=training(task, epochs, {"name": "adamw"}) | taught, protocol=protocol
    )


def trained(given: dict[str, Any], data: Path | None, out: Path) -> tuple[Record, str]:
    """Runs a recipe; returns its record and the folder of the dense model."""
    with TerminalProgress() as progress:
        plan = trainflat.plan(given, data=data, out=out)
        record = trainflat.run(plan.recipe, data=data, out=out, progress=progress)
    return record, os.path.relpath(plan.folder / "stages" / "dense")


def choose(task: str, data: Path | None, out: Path, results: Path) -> None:
    """Compares radii on held-out rows; AdamW stands beside them."""
    rows: list[dict[str, Any]] = []
    held = TASKS[task][0] | {"holdout": 0.1}
    for teacher, rho in [("adamw", 0.0), *(("sam", radius) for radius in RADII)]:
        dense, folder = trained(teaching(task, teacher, rho, 0) | {"task": held}, data, out)
        protocol = {"name": "post-training", "sparsities": MOST}
        smaller, _ = trained(
            shared(task, f"held-out-{teacher}", folder, 0, protocol=protocol) | {"task": held}, data, out
        )
        pruned = [smaller.score(stage) for stage in smaller.stages[1:]]
        found = {"teacher": teacher, "rho": rho, "dense": dense.score(dense.stages[0]), "pruned": pruned}
        digests = {"hashes": [dense.recipe_hash, smaller.recipe_hash], "digests": [dense.digest, smaller.digest]}
        rows.append(found | {"sparsities": MOST, "metric": dense.task.metric} | digests)
        write_json(results / f"rho-{task}.json", {"environment": dense.environment, "runs": rows})


def chosen(path: Path) -> float:
    """Reads the radius whose pruned models score best on held-out rows."""
    runs = [one for one in read_json(path)["runs"] if one["teacher"] == "sam"]
    return float(max(runs, key=lambda one: fmean(one["pruned"]))["rho"])


def main() -> None:
    """Chooses rho, or runs the methods with each teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("choose", "run"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/learned"))
    parser.add_argument("--results", type=Path, default=Path("results/learned"))
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--teachers", default=",".join(TEACHERS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    given = parser.parse_args()
    methods = given.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        parser.error(f"no method is called {unknown[0]!r}. Known: {', '.join(METHODS)}.")
    for task in given.tasks.split(","):
        if given.job == "choose":
            choose(task, given.data, given.out, given.results)
            continue
        rho = chosen(given.results / f"rho-{task}.json")
        for seed in map(int, given.seeds.split(",")):
            for teacher in given.teachers.split(","):
                folder = run(teaching(task, teacher, rho, seed), given.data, given.out, given.results)
                dense = os.path.relpath(folder / "stages" / "dense")
                for method in methods:
                    run(pruning(task, method, teacher, dense, seed), given.data, given.out, given.results)


if __name__ == "__main__":
    main()
