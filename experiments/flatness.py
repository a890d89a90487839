"""Does flatness tell how well a model can be pruned? Seven roads to a minimum, on real text, dense and pruned.

Every method trains MiniLM on the whole training set (of STS-B on 3000 rows), prunes to the paper's reference sparsity
and trains on (the paper's standard pruning: from the pre-trained weights again, one round this steep learns nothing
in three epochs, whatever the method). Each matrix keeps its share: the paper's ranking over the whole encoder leaves
MiniLM's pooler a few dozen weights at 50 %, and then no method learns again. Both models are scored on the official
validation set, and their flatness is measured on training rows, among the surviving weights. The dense model is also
pruned at several sparsities without training again. Learning rate and epochs are those of ``experiments.prune``; the
last weights count, so that nothing is chosen on the reported split. All SAMs share rho = 0.005: like all smaller ones
it cost at most three points on either task of the sweeps, while 0.01 cost ten on STS-B; in ASAM's ball, which is
another, it is as far in the first step.

Runs resume. Copies each record and its one-shot scores to ``results/flatness/``; ``experiments.flatness_table`` reads
them.

    python -m experiments.flatness cola --data ../shared/data --out runs/flatness --seeds 0,1
"""

import argparse
from pathlib import Path
from typing import Any

import trainflat
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.files import write_json
from trainflat.core.progress import Progress
from trainflat.evaluation import score
from trainflat.models import load_encoder
from trainflat.pruning import MagnitudePruner
from trainflat.records.run import Record
from trainflat.tasks import TASKS

RHO, EPOCHS, LENGTH = 0.005, 3, 128
RATES = {"stsb": 2e-4, "cola": 1e-4}  # of the sweeps
ROWS = {"stsb": 3000, "cola": None}  # STS-B's texts are three times as long; as many rows as in its sweep
SPARSITY = 0.5  # the paper's reference for both tasks
ONE_SHOT = (0.2, 0.3, 0.4, 0.5, 0.6)
METHODS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": {"name": "adamw"}},
    "sam": {"optimizer": {"name": "sam", "rho": RHO}},
    "asam": {"optimizer": {"name": "asam", "rho": RHO}},
    "swa": {"optimizer": {"name": "adamw"}, "averaging": {"name": "swa", "every": 0.5}},
    "looksam": {"optimizer": {"name": "looksam", "rho": RHO, "k": 5}},
    "s2sam": {"optimizer": {"name": "s2sam", "rho": RHO}},
    "sam-every-5": {"optimizer": {"name": "sam", "rho": RHO, "every": 5}},
}
MEASURES = [
    {"name": "keskar", "epsilon": 1e-3},
    {"name": "ball", "rho": 0.05},
    {"name": "gaussian", "sigma": 0.01},
    {"name": "hessian", "k": 1, "iterations": 10, "samples": 4},
    {"name": "gradient-norm"},
]


def recipe(task: str, method: str, seed: int) -> dict[str, Any]:
    """One run: dense, then pruned to the reference sparsity."""
    training = METHODS[method] | {"optimizer": METHODS[method]["optimizer"] | {"lr": RATES[task]}}
    common = {"epochs": EPOCHS, "max_length": LENGTH, "precision": "bf16", "keep": "last"}
    return {
        "name": f"{task}-{method}",
        "task": {"name": task, "rows": ROWS[task]},
        "model": "minilm",
        "seed": seed,
        "training": common | training,
        "protocol": {"name": "iterative", "sparsities": [SPARSITY], "rewind": "none", "scope": "layer"},
        "evaluation": {"latency": {"batches": []}, "flatness": {"measures": MEASURES, "rows": 64}},
    }


def one_shot(record: Record, model: Path, data: Path | None, progress: Progress) -> dict[str, float]:
    """The dense model's score after pruning at once, by sparsity, on the whole validation set."""
    task = TASKS.read(record.recipe["task"]).build(data=data, seed=record.seed)
    encoder = load_encoder(str(model), task.head, fine_tuned=True)
    _, evaluation = task.encode(encoder.tokenizer, LENGTH)
    found = {}
    progress.begin("pruning at once", len(ONE_SHOT))
    for done, sparsity in enumerate(ONE_SHOT, 1):  # sparser contains denser, so the model need not come back
        MagnitudePruner(encoder.model, sparsity=sparsity, scope="layer").select().apply_(encoder.model)
        scores = score(task, encoder.model, evaluation[task.split], encoder.tokenizer)
        found[f"{sparsity:g}"] = scores[task.metric]
        progress.advance(done, f"{sparsity:.0%}: {scores[task.metric]:.1f}")
    progress.end()
    return found


def main() -> None:
    """Runs the methods on one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(RATES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/flatness"))
    parser.add_argument("--results", type=Path, default=Path("results/flatness"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    for seed in map(int, given.seeds.split(",")):
        for method in given.methods.split(","):
            folder = given.results / f"{given.task}-{method}-seed{seed}"
            with TerminalProgress() as progress:
                plan = trainflat.plan(recipe(given.task, method, seed), data=given.data, out=given.out)
                record = trainflat.run(plan.recipe, data=given.data, out=given.out, progress=progress)
                scores = one_shot(record, plan.folder / "stages" / "dense", given.data, progress)
            folder.mkdir(parents=True, exist_ok=True)
            record.save(folder)
            write_json(folder / "one_shot.json", {"digest": record.digest, "scores": scores})


if __name__ == "__main__":
    main()
