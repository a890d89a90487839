"""Recipes of the gradual protocol, one per gate, that a tiny run can finish."""

from pathlib import Path
from typing import Any

from tests.support.runs import own_files

HOLD = {"name": "cubic", "start": 0.1, "hold": 0.4}


OPTIONS: dict[str, dict[str, Any]] = {
    "magnitude": {"sparsity": 0.6, "every": 2},
    "random": {"sparsity": 0.6, "every": 2},
    "loss-preservation": {"sparsity": 0.6, "every": 2},
    "grasp": {"sparsity": 0.6, "every": 4, "rows": 8},
    "gradient-norm": {"sparsity": 0.6, "every": 4, "rows": 8},
    "pins": {"sparsity": 0.6, "every": 2, "window": 3},
    "hard-movement": {"sparsity": 0.6, "scope": "global"},
    "soft-movement": {"penalty": 4.0, "score_lr": 0.5},
    "l0": {"target_sparsity": 0.6, "score_lr": 0.5},
    "block-movement": {"penalty": 4.0, "score_lr": 0.5, "block": 4},
    "mlpruning": {"target_sparsity": 0.6, "first_ratio": 4.0, "score_lr": 0.8},
}


def recipe(place: Path, gate: Any, optimizer: str = "adamw", **protocol: Any) -> dict[str, Any]:
    training = {"epochs": 4, "batch_size": 8, "max_length": 16, "log_every": 1, "evaluate_every": 3}
    return {
        "task": own_files(place),
        "model": str(place / "model"),
        "training": training | {"optimizer": {"name": optimizer, "lr": 1e-3}},
        "protocol": {"name": "gradual", "gate": gate, **protocol},
        "evaluation": {"latency": {"batches": []}},
    }


def section(name: str) -> dict[str, Any]:
    return {"name": name, "schedule": HOLD, **OPTIONS.get(name, {})}
