"""Estimates how long a grid trains: by what its finished runs took, else by some passes of each kind."""

import time
from collections import defaultdict
from statistics import fmean, median

import torch

from trainflat.commands.compress.pair import using_threads
from trainflat.commands.grid.plan import GridPlan
from trainflat.commands.prepare import Prepared
from trainflat.core.errors import InputError
from trainflat.core.files import hash_json
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.evaluation import objective_on
from trainflat.models import load_encoder
from trainflat.records.run import RECORD_FILE, Record

_BATCHES = 4  # of rows sorted by length, as they are trained on: one batch of any rows would be padded more


def training_seconds(plan: GridPlan, workers: int, threads: int, progress: Progress | None = None) -> float | None:
    """Estimates the seconds in which what is missing of a grid is trained; without evaluations.

    Returns:
        Seconds if all workers have work until the end; None where no run could be timed.
    """
    missing: dict[str, float] = defaultdict(float)
    jobs: dict[str, Prepared] = {}
    for job, _, passes in plan.trained:
        if not (job.folder / RECORD_FILE).is_file():
            missing[_kind(job)] += passes
            jobs.setdefault(_kind(job), job)
    known = _observed(plan)
    with using_threads(threads):
        shown = (progress or Progress()).each("timing passes", jobs.items(), len(jobs))
        measured = {kind: known.get(kind) or _timed(job) for kind, job in shown}
    found = [seconds for seconds in measured.values() if seconds is not None]
    if missing and not found:
        return None
    return sum(passes * (measured[kind] or fmean(found)) for kind, passes in missing.items()) / workers


def _kind(job: Prepared) -> str:
    """Hashes what decides how long a pass takes."""
    recipe, training = job.recipe.resolved(), job.recipe.training
    shape = [training.batch_size, training.accumulate, training.max_length, training.precision, training.batching]
    return hash_json([recipe["task"], recipe["model"], shape])


def _observed(plan: GridPlan) -> dict[str, float]:
    """Returns seconds per pass by kind, as finished runs of the grid took."""
    found = defaultdict(list)
    for _, job, _ in plan.rows:
        if (job.folder / RECORD_FILE).is_file():
            for stage in Record.load(job.folder).stages:
                if stage.training is not None and stage.training.passes:
                    found[_kind(job)].append(stage.timing.train_seconds / stage.training.passes)
    return {kind: median(each) for kind, each in found.items()}


def _timed(job: Prepared) -> float | None:
    """Times forward and backward passes of a run's model on its rows; None where there is no such model yet."""
    recipe, training = job.recipe, job.recipe.training
    seed = derive_seed(recipe.seed, "estimate")
    try:
        encoder = load_encoder(recipe.model.name, job.task.head, layers=recipe.model.layers, seed=seed)
    except InputError:
        return None
    train, _ = job.task.encode(encoder.tokenizer, training.max_length)
    size = training.batch_size
    objective = objective_on(encoder.model, train, encoder.tokenizer, rows=_BATCHES * size, batch_size=size, seed=seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
        objective.gradient()  # the first one chooses kernels
        start = time.perf_counter()
        objective.gradient()
    return (time.perf_counter() - start) / len(objective.batches)
