"""Does sharpness-aware training help movement pruning? Four ways to a tenth and to 3 % of the weights, on real text.

MiniLM learns STS-B, all 5749 rows of it, while magnitude, hard movement, soft movement or L0 prunes its encoder; hard
and soft movement also under SAM. A teacher, the same model fine-tuned densely by AdamW with the same seed, is made
first. The course is that of the movement paper: a cubic schedule between one warm-up and two, its weights of labels and
teacher, embeddings frozen, no weight decay; soft movement and L0 are led to their target by ``target_sparsity``,
because what sparsity a published lambda would lead to here nobody knows. The weights' learning rate is that of the
sweep, those of the scores have the published ratio to it: 1e-2 and, of L0, 0.1 to 3e-5. (Hard movement does not depend
on it: only the order of its scores counts.) SAM displaces the model's weights and no scores, ``perturb: weights``, with
the rho of ``experiments.flatness``. The last weights count, so that nothing is chosen on the reported split.

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
from trainflat.terminal import TerminalProgress

TASK, MODEL = "stsb", "minilm"
EPOCHS, TEACHER_EPOCHS, BATCH, LENGTH = 6, 3, 32, 128  # 1080 steps: 10 to 20 minutes of a core
RATE = 2e-4  # of the sweep
SCORES_PER_WEIGHT = {"movement": 1e-2 / 3e-5, "l0": 0.1 / 3e-5}  # learning rates, published
REMAINING = (0.10, 0.03)
WARMUP = 0.1  # share of the steps
SCHEDULE = {"name": "cubic", "start": WARMUP, "hold": 2 * WARMUP}
DISTILLATION = {"weight": 0.9, "temperature": 2.0}
RHO, PERTURB = 0.005, "weights"

MOVEMENT = {"score_lr": SCORES_PER_WEIGHT["movement"] * RATE}
GATES: dict[str, dict[str, Any]] = {
    "magnitude": {"name": "magnitude", "every": 16},
    "hard": {"name": "hard-movement", "refresh": 16, **MOVEMENT},
    "soft": {"name": "soft-movement", **MOVEMENT},
    "l0": {"name": "l0", "score_lr": SCORES_PER_WEIGHT["l0"] * RATE},
}
ADAMW = {"name": "adamw", "lr": RATE, "weight_decay": 0.0}
SAM = {"name": "sam", "rho": RHO, "base": "adamw", "lr": RATE, "weight_decay": 0.0}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, ADAMW) for name in GATES}
METHODS |= {f"{name}-sam": (name, SAM) for name in ("hard", "soft")}
TEACHER = "teacher"


def recipe(name: str, seed: int, training: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """What all runs share, the teacher's too."""
    common = {"batch_size": BATCH, "max_length": LENGTH, "precision": "bf16", "keep": "last"}
    return {
        "name": f"{TASK}-{name}",
        "task": TASK,
        "model": MODEL,
        "seed": seed,
        "training": common | training,
        "protocol": protocol,
        "evaluation": {"latency": {"batches": []}},
    }


def teaching(seed: int) -> dict[str, Any]:
    """The teacher's run."""
    return recipe(TEACHER, seed, {"epochs": TEACHER_EPOCHS, "optimizer": ADAMW}, {"name": "dense"})


def pruning(method: str, remaining: float, seed: int, teacher: str) -> dict[str, Any]:
    """A student's run: ``remaining`` of the encoder's weights stay."""
    name, optimizer = METHODS[method]
    target = "sparsity" if name in ("magnitude", "hard") else "target_sparsity"
    gate = GATES[name] | {target: round(1 - remaining, 4), "schedule": SCHEDULE}
    if optimizer is SAM:
        gate |= {"perturb": PERTURB}
    training = {"epochs": EPOCHS, "optimizer": optimizer, "warmup": WARMUP}
    training |= {"distillation": {"teacher": teacher, **DISTILLATION}}
    return recipe(f"{method}-{remaining:.0%}".rstrip("%"), seed, training, {"name": "gradual", "gate": gate})


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
