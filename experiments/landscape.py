"""The plane of the paper's figure 6 on real text, and the line and the spectra that go with it.

Takes the dense models that ``experiments.flatness`` trained with AdamW and SAM from one seed, and the pre-trained
encoder they began with. The loss is that of 256 rows of the validation set, over the plane through all three, with
either task head; and along the straight line between the two. Spectra of the Hessian are those of 64 training rows.
A plane that was stopped goes on where it was.

    python -m experiments.landscape cola --data ../shared/data --runs runs/flatness
"""

import argparse
from pathlib import Path

from transformers import PreTrainedModel

import trainflat
from experiments.flatness import LENGTH, recipe
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.rng import derive_seed
from trainflat.evaluation import objective_on
from trainflat.models import Encoder, load_encoder
from trainflat.report import find_landscapes, read_records, write_report
from trainflat.sharpness import Objective, barrier, loss_plane, spectral_density, spectrum_record
from trainflat.tasks.base import EncodedSplit, Task

ROWS, SPECTRUM_ROWS, SIZE = 256, 64, 15
NAMES = {"adamw": "AdamW", "sam": "SAM"}


def planes(models: dict[str, PreTrainedModel], on: Objective, where: str, store: Path, out: Path) -> None:
    """With either head."""
    points = {name: model.state_dict() for name, model in models.items()}
    for head in NAMES.values():
        plane = loss_plane(on, points, head=head, size=SIZE, store=store / f"plane-{where}-{head}.store.json")
        plane.model_copy(update=described(plane.name, where, ROWS, "validation")).save(out)


def described(name: str, where: str, rows: int, split: str) -> dict[str, str]:
    """Its name among the files, its title, and what it stands on."""
    return {"name": f"{where}-{name}", "title": f"{where} · MiniLM", "measured_on": f"{rows} rows of {split}"}


def spectra(
    encoders: dict[str, Encoder], task: Task, train: EncodedSplit, out: Path, progress: TerminalProgress
) -> None:
    """Of both models, on the same training rows."""
    for name, encoder in encoders.items():
        objective = objective_on(encoder.model, train, encoder.tokenizer, rows=SPECTRUM_ROWS, progress=progress)
        record = spectrum_record(spectral_density(objective, steps=30, probes=2))
        told = described(f"{record.name}-{name}", task.name, SPECTRUM_ROWS, "train")
        record.model_copy(update=told | {"title": f"{task.name} · MiniLM · {name}"}).save(out)


def main() -> None:
    """Measures one task, and draws all that was measured so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/flatness"))
    parser.add_argument("--results", type=Path, default=Path("results/landscape"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plans = {
        name: trainflat.plan(recipe(given.task, method, given.seed), data=given.data, out=given.runs)
        for method, name in NAMES.items()
    }
    task = plans["AdamW"].recipe.task.build(data=given.data, seed=given.seed)
    encoders = {n: load_encoder(str(p.folder / "stages/dense"), task.head, fine_tuned=True) for n, p in plans.items()}
    start = load_encoder("minilm", task.head, seed=derive_seed(given.seed, "head"))
    train, evaluation = task.encode(start.tokenizer, LENGTH)
    split = evaluation[task.split]
    with TerminalProgress() as progress:
        objective = objective_on(start.model, split, start.tokenizer, rows=ROWS, progress=progress)
        models = {"pre-trained": start.model} | {name: encoder.model for name, encoder in encoders.items()}
        planes(models, objective, task.name, given.runs, given.results)
        one, other = (encoder.model.state_dict() for encoder in encoders.values())
        line = barrier(objective, one, other, names=("AdamW", "SAM"), points=11)
        line.model_copy(update=described(line.name, task.name, ROWS, "validation")).save(given.results)
        spectra(encoders, task, train, given.results, progress)
    records = read_records([plan.folder for plan in plans.values()])
    write_report(records, given.results / "report", landscapes=find_landscapes([given.results]))


if __name__ == "__main__":
    main()
