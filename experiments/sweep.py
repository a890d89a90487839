"""Chooses learning rate, rho and epochs per task on rows held out from the training set.

First AdamW's learning rate, then SAM's rho at that rate, both dense; the validation split is never read. Runs resume,
so calling it again only adds what is missing. Writes ``results/sweeps/TASK.json``. bf16 autocast over float32 weights:
a step takes 0.6 of the time on a core that has the instructions.

    python -m experiments.sweep stsb --data ../shared/data --out runs/sweeps
"""

import argparse
from pathlib import Path
from typing import Any

import trainflat
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.files import write_json

RATES = (5e-5, 1e-4, 2e-4)
RADII = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
EPOCHS = (3, 5)


def settings(task: str, rows: int | None, optimizer: dict[str, Any], epochs: float) -> dict[str, Any]:
    """One dense run on nine tenths of the training rows, scored on the tenth."""
    return {
        "name": f"sweep-{task}",
        "task": {"name": task, "holdout": 0.1, **({} if rows is None else {"rows": rows})},
        "model": {"name": "minilm"},
        "seed": 0,
        "training": {"epochs": epochs, "max_length": 128, "precision": "bf16", "optimizer": optimizer},
        "evaluation": {"latency": {"batches": []}},
    }


def main() -> None:
    """Runs one task's sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/sweeps"))
    parser.add_argument("--results", type=Path, default=Path("results/sweeps"))
    given = parser.parse_args()
    table: list[dict[str, Any]] = []

    def measure(optimizer: dict[str, Any], epochs: float) -> float:
        recipe = settings(given.task, given.rows, optimizer, epochs)
        with TerminalProgress() as progress:
            record = trainflat.run(recipe, data=given.data, out=given.out, progress=progress)
        [stage] = record.stages
        score = record.score(stage)
        row = {"optimizer": optimizer, "epochs": epochs, "metric": record.task.metric, "holdout": score}
        table.append(
            row | {"recipe_hash": record.recipe_hash, "digest": record.digest, "rows": record.data["train"].rows}
        )
        write_json(given.results / f"{given.task}.json", {"environment": record.environment, "runs": table})
        return score

    few, many = EPOCHS
    rate = max(RATES, key=lambda lr: measure({"name": "adamw", "lr": lr}, few))
    rho = max(RADII, key=lambda r: measure({"name": "sam", "rho": r, "lr": rate}, few))
    measure({"name": "adamw", "lr": rate}, many)
    measure({"name": "sam", "rho": rho, "lr": rate}, many)


if __name__ == "__main__":
    main()
