"""Iterative magnitude pruning with rewinding on real text, AdamW beside SAM, with the settings that the sweep chose.

Reads ``results/sweeps/TASK.json``, trains on the whole training set, scores on the official validation set. Runs
resume. Copies each record to ``results/pruning/`` and draws the report's figures beside them.

    python -m experiments.prune stsb --data ../shared/data --out runs/pruning --seeds 0
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import trainflat
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.files import read_json
from trainflat.report import read_records, write_report

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)


def chosen(sweep: Path) -> tuple[float, dict[str, dict[str, Any]]]:
    """Epochs, the same for both optimizers so that only these differ, and each optimizer's options.

    The options with the best held-out score in the short runs; the number of epochs with the best mean over both.
    """
    runs = read_json(sweep)["runs"]
    few = min(run["epochs"] for run in runs)
    best = {}
    for name in ("adamw", "sam"):
        short = [run for run in runs if run["optimizer"]["name"] == name and run["epochs"] == few]
        best[name] = max(short, key=lambda run: run["holdout"])["optimizer"]

    def mean(epochs: float) -> float:
        scores = [run["holdout"] for run in runs if run["epochs"] == epochs and run["optimizer"] in best.values()]
        return fmean(scores)

    return max({run["epochs"] for run in runs}, key=mean), best


def main() -> None:
    """Runs both optimizers on one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--optimizers", default="adamw,sam")
    parser.add_argument("--epochs", type=float, help="instead of those that the sweep chose")
    given = parser.parse_args()
    records = given.results / "pruning"
    swept, best = chosen(given.results / "sweeps" / f"{given.task}.json")
    epochs = given.epochs or swept
    for seed in map(int, given.seeds.split(",")):
        for optimizer in given.optimizers.split(","):
            recipe = {
                "name": f"{given.task}-{optimizer}",
                "task": given.task,
                "model": "minilm",
                "seed": seed,
                "training": {
                    "epochs": epochs,
                    "max_length": 128,
                    "precision": "bf16",
                    "optimizer": best[optimizer],
                },
                "protocol": {"name": "iterative", "sparsities": list(SPARSITIES)},
            }
            with TerminalProgress() as progress:
                record = trainflat.run(recipe, data=given.data, out=given.out, progress=progress)
            folder = records / f"{given.task}-{optimizer}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            record.save(folder)
    write_report(read_records([records]), records / "report", formats=("png", "svg", "csv", "md"))


if __name__ == "__main__":
    main()
