"""Does sharpness-aware training help movement pruning? Four ways to a tenth and to 3 % of the weights, on real text.

The first three layers of MiniLM learn 20,000 rows of SST-2, drawn by the seed, while magnitude, hard movement, soft
movement or L0 prunes them; hard and soft movement also under SAM. A teacher, all six layers fine-tuned densely by AdamW
with the same seed, is made first. The frame is that of the movement paper: a ramp between a dense phase and one at the
final sparsity, the teacher beside the labels, embeddings frozen, no weight decay; soft movement and L0 are led to their
target by ``target_sparsity``, because what sparsity a published lambda would lead to here nobody knows.

The ramp is linear where the paper's is cubic, begins later, and hard movement selects anew for every step; and three
layers are pruned, not six. The paper takes 55,000 steps and more, this 3125. Movement drops weights regardless of their
size, so that an encoder has to learn again what it knew; in so few steps all six layers mostly did not (tries
in ``docs/experiments.md``). Learning rates of the scores have the published ratio to that of the weights: 1e-2 and, of
L0, 0.1 to 3e-5. (Hard movement does not depend on it: only the order of its scores counts.) SAM displaces the model's
weights and no scores, ``perturb: weights``. The last weights count, so that nothing is chosen on the reported split.

Runs resume. Several processes may share the methods as soon as ``--methods teacher`` is done. Start all of them in one
folder: the teacher's path, relative to it, is part of a run's recipe. Copies each record to ``results/movement/``;
``experiments.movement_table`` reads them.

    python -m experiments.movement --data ../shared/data --out runs/movement --seeds 0,1,2
"""

import argparse
import os
from pathlib import Path
from typing import Any

import trainflat
from trainflat.cli.terminal import TerminalProgress

TASK, ROWS, LENGTH = "sst2", 20_000, 128
RATE = 2e-4
MODEL, EPOCHS, BATCH = {"name": "minilm", "layers": 3}, 2.5, 16  # 3125 steps: 7 to 15 minutes of a core
TEACHER_MODEL, TEACHER_EPOCHS, TEACHER_BATCH, TEACHER_RATE = "minilm", 2, 32, 1e-4
SCORES_PER_WEIGHT = {"movement": 1e-2 / 3e-5, "l0": 0.1 / 3e-5}  # learning rates, published
REMAINING = (0.10, 0.03)
WARMUP = 0.1  # share of the steps
SCHEDULE = {"name": "linear", "start": 0.2, "hold": 0.2}
DISTILLATION = {"weight": 0.9, "temperature": 2.0}
RHO, PERTURB = 0.005, "weights"

MOVEMENT = {"score_lr": SCORES_PER_WEIGHT["movement"] * RATE}
GATES: dict[str, dict[str, Any]] = {
    "magnitude": {"name": "magnitude", "every": 16},
    "hard": {"name": "hard-movement", "refresh": 1, **MOVEMENT},
    "soft": {"name": "soft-movement", **MOVEMENT},
    "l0": {"name": "l0", "score_lr": SCORES_PER_WEIGHT["l0"] * RATE},
}
ADAMW = {"name": "adamw", "lr": RATE, "weight_decay": 0.0}
SAM = {"name": "sam", "rho": RHO, "base": "adamw", "lr": RATE, "weight_decay": 0.0}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, ADAMW) for name in GATES}
METHODS |= {f"{name}-sam": (name, SAM) for name in ("hard", "soft")}
TEACHER = "teacher"


def recipe(name: str, model: Any, seed: int, training: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """What all runs share, the teacher's too."""
    common = {"max_length": LENGTH, "precision": "bf16", "keep": "last"}
    return {
        "name": f"{TASK}-{name}",
        "task": {"name": TASK, "rows": ROWS},
        "model": model,
        "seed": seed,
        "training": common | training,
        "protocol": protocol,
        "evaluation": {"latency": {"batches": []}},
    }


def teaching(seed: int) -> dict[str, Any]:
    """The teacher's run."""
    optimizer = ADAMW | {"lr": TEACHER_RATE}
    training = {"epochs": TEACHER_EPOCHS, "batch_size": TEACHER_BATCH, "optimizer": optimizer}
    return recipe(TEACHER, TEACHER_MODEL, seed, training, {"name": "dense"})


def pruning(method: str, remaining: float, seed: int, teacher: str) -> dict[str, Any]:
    """A student's run: ``remaining`` of the encoder's weights stay."""
    name, optimizer = METHODS[method]
    target = "sparsity" if name in ("magnitude", "hard") else "target_sparsity"
    gate = GATES[name] | {target: round(1 - remaining, 4), "schedule": SCHEDULE}
    if optimizer is SAM:
        gate |= {"perturb": PERTURB}
    training = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": optimizer, "warmup": WARMUP}
    training |= {"distillation": {"teacher": teacher, **DISTILLATION}}
    name = f"{method}-{remaining:.0%}".rstrip("%")
    return recipe(name, MODEL, seed, training, {"name": "gradual", "gate": gate})


def run(given: dict[str, Any], data: Path | None, out: Path, results: Path) -> Path:
    """Runs a recipe, or finds that it was run, and copies its record; where the run lies."""
    with TerminalProgress() as progress:
        plan = trainflat.plan(given, data=data, out=out)
        record = trainflat.run(plan.recipe, data=data, out=out, progress=progress)
    folder = results / f"{record.name}-seed{record.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    record.save(folder)
    return plan.folder


def main() -> None:
    """Runs the methods, the teacher of each seed first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/movement"))
    parser.add_argument("--results", type=Path, default=Path("results/movement"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join([TEACHER, *METHODS])}")
    parser.add_argument("--remaining", default=",".join(map(str, REMAINING)), help="shares of the weights that stay")
    given = parser.parse_args()
    methods = [method for method in given.methods.split(",") if method != TEACHER]
    if unknown := [method for method in methods if method not in METHODS]:
        parser.error(f"no method is called {unknown[0]!r}. Known: {', '.join([TEACHER, *METHODS])}.")
    for seed in map(int, given.seeds.split(",")):
        folder = run(teaching(seed), given.data, given.out, given.results)
        teacher = os.path.relpath(folder / "stages" / "dense")
        for remaining in map(float, given.remaining.split(",")):
            for method in methods:
                run(pruning(method, remaining, seed, teacher), given.data, given.out, given.results)


if __name__ == "__main__":
    main()
