"""The main job: a recipe goes in, a record comes out."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from trainflat import record
from trainflat.errors import DamagedFile, InputError
from trainflat.evaluation import SPEED_NOTE, matrix_zeros, measure_latency, measure_sizes, score
from trainflat.files import read_json, write_json, write_text, writing
from trainflat.models import load_encoder, model_info
from trainflat.progress import Progress
from trainflat.protocols import PROTOCOLS, Bench, Planned, Produced, Protocol
from trainflat.protocols.bench import derive_seed
from trainflat.recipe import Recipe, build, load_recipe
from trainflat.record import Record
from trainflat.tasks import TASKS
from trainflat.tasks.base import Task

__all__ = ["Plan", "plan", "run"]

_CLAIM, _LOCK = "claim.json", ".lock"


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    progress: Progress | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Record:
    """Trains, prunes, measures and records; continues where an earlier call was interrupted.

    Args:
        recipe: A file, the name of a packaged recipe, or the recipe itself.
        data: Folder with the task's files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        out: The run's folder is made in here, named by the recipe's hash.
        progress: Is told what happens.
        overrides: ``{"training.epochs": 2}`` or ``["training.epochs=2"]``.

    Returns:
        The record that is now in the run's folder.

    Raises:
        InputError: something given cannot be used; see ``trainflat.errors``.
    """
    recipe = load_recipe(recipe, overrides)
    progress = progress or Progress()
    task = build(TASKS, recipe.task, data=data, seed=derive_seed(recipe.seed, "rows"))
    folder = out / recipe.folder_name
    with _opened(folder, recipe, task) as finished:
        if finished is not None:
            progress.say(f"{folder} is complete: nothing to do.")
            return finished
        bench = _bench(recipe, task, folder, progress)
        info = model_info(bench.encoder)
        if bench.writes:
            _claim_model(folder, info)
        protocol = build(PROTOCOLS, recipe.protocol)
        if protocol.unstructured:
            progress.say(SPEED_NOTE)
        stages = [_finish(bench, produced, recipe) for produced in protocol.run(bench)]
        result = _record(recipe, task, info, stages)
        bench.tidy()
        if bench.writes:
            result.save(folder)
        return result


def _bench(recipe: Recipe, task: Task, folder: Path, progress: Progress) -> Bench:
    name, layers = recipe.model.name, recipe.model.layers
    encoder = load_encoder(name, task.head, layers=layers, seed=derive_seed(recipe.seed, "head"))
    length = recipe.training.max_length
    if length > encoder.max_length:
        raise InputError(f"training.max_length {length} is more than the {encoder.max_length} positions of {name}.")
    train, evaluation = task.encode(encoder.tokenizer, length)
    first = _is_first_process()
    return Bench(encoder, task, train, evaluation, recipe.training, folder, recipe.seed, first, progress)


def _finish(bench: Bench, produced: Produced, recipe: Recipe) -> record.Stage:
    """Measures a stage and puts it on disk, unless an earlier call did."""
    known = bench.recall(produced.plan)
    if known is None:
        known = bench.commit(produced, _measure(bench, produced, recipe))
    main = known.scores[bench.task.split][bench.task.metric]
    zeros = f"{known.sizes.encoder_sparsity:.0%} of the encoder is zero"
    bench.progress.say(f"{known.name}: {bench.task.metric} {main:.1f} on {bench.task.split}, {zeros}")
    return known


def _measure(bench: Bench, produced: Produced, recipe: Recipe) -> record.Stage:
    if produced.masks is not None:
        produced.masks.check(bench.model)
    started = time.perf_counter()
    scores = {n: score(bench.task, bench.model, s, bench.encoder.tokenizer) for n, s in bench.evaluation.items()}
    seconds = time.perf_counter() - started
    options = recipe.evaluation.latency
    shapes = [(b, t) for b in options.batches for t in options.lengths if t <= bench.encoder.max_length]
    latency = [measure_latency(bench.model, b, t, repeats=options.repeats) for b, t in shapes] if bench.writes else []
    return record.Stage(
        name=produced.plan.name,
        target_sparsity=produced.plan.sparsity,
        scores=scores,
        sizes=measure_sizes(bench.model, produced.masks),
        matrices=matrix_zeros(bench.model),
        training=produced.training,
        timing=record.Timing(train_seconds=produced.seconds, evaluate_seconds=seconds, latency=latency),
    )


def _record(recipe: Recipe, task: Task, info: record.ModelInfo, stages: list[record.Stage]) -> Record:
    return Record(
        name=recipe.name,
        recipe=recipe.resolved(),
        recipe_hash=recipe.hash,
        seed=recipe.seed,
        protocol=recipe.protocol["name"],
        optimizer=recipe.training.optimizer["name"],
        task=record.TaskInfo(
            name=task.name, kind=task.head.kind, split=task.split, metric=task.metric, labels=list(task.head.labels)
        ),
        model=info,
        data=task.fingerprints,
        environment=record.environment(_devices()),
        stages=stages,
    ).sealed()


def _devices() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "gpu": gpu, "processes": _processes()}


@dataclass(frozen=True)
class Plan:
    """What a run would do, without doing it."""

    recipe: Recipe
    folder: Path
    stages: list[Planned]
    train_rows: int
    evaluation_rows: dict[str, int]
    steps_per_training: int
    passes_per_step: float
    exact: bool  # False: long paragraphs will be read in several windows, so that there are some more steps
    partial: list[str]  # splits that hold only some of the official rows
    note: str

    @property
    def trainings(self) -> int:
        """How many stages are trained."""
        return sum(stage.trained for stage in self.stages)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.trainings * self.steps_per_training

    @property
    def files(self) -> list[str]:
        """What the run's folder will hold."""
        per_stage = ["config.json", "model.safetensors", "tokenizer.json", "stage.json", "manifest.json"]
        names = [
            f"stages/{s.name}/{f}"
            for s in self.stages
            for f in [*per_stage, *(["masks.safetensors"] if s.sparsity else [])]
        ]
        return ["recipe.yaml", _CLAIM, *names, record.RECORD_FILE]


def plan(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Plan:
    """Reads the recipe and the data and says what would be done. Loads no model and writes nothing."""
    recipe = load_recipe(recipe, overrides)
    protocol: Protocol = build(PROTOCOLS, recipe.protocol)
    task = build(TASKS, recipe.task, data=data, seed=derive_seed(recipe.seed, "rows"))
    rows = {name: fingerprint.rows for name, fingerprint in task.fingerprints.items()}
    train = rows.pop("train")
    return Plan(
        recipe=recipe,
        folder=out / recipe.folder_name,
        stages=protocol.plan(),
        train_rows=train,
        evaluation_rows=rows,
        steps_per_training=recipe.training.steps(train),
        passes_per_step=recipe.training.passes_per_step,
        exact=task.head.kind != "spans",
        partial=[name for name, fingerprint in task.fingerprints.items() if fingerprint.partial],
        note=SPEED_NOTE if protocol.unstructured else "",
    )


@contextmanager
def _opened(folder: Path, recipe: Recipe, task: Task) -> Iterator[Record | None]:
    """Holds the run's folder, which is this recipe's on this data; gives its record where it is complete."""
    if not _is_first_process():
        yield _finished(folder)
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except OSError as error:
            raise InputError(
                f"another process is working in {folder}. Wait for it, or change the recipe's name."
            ) from error
        _claim(folder, recipe, task)
        yield _finished(folder)


def _claim(folder: Path, recipe: Recipe, task: Task) -> None:
    """Writes what the folder is for, or compares it."""
    given = {name: fingerprint.model_dump(mode="json") for name, fingerprint in task.fingerprints.items()}
    claim = folder / _CLAIM
    if not claim.is_file():
        if any(p.name != _LOCK and not p.match(f".{_CLAIM}.*.tmp") for p in folder.iterdir()):
            raise InputError(
                f"{folder} holds files that no run of this recipe wrote. Choose another --out or empty it."
            )
        write_json(claim, {"recipe": recipe.hash, "data": given})  # first of all: without it nothing here is ours
    for leftover in folder.glob(".*.tmp"):  # of a write that was killed
        leftover.unlink()
    before = _read_claim(claim)
    if before["recipe"] != recipe.hash:
        raise InputError(f"{folder} holds the run of another recipe. Choose another --out or another name.")
    for split, fingerprint in given.items():
        if before["data"].get(split, {}).get("sha256") != fingerprint["sha256"]:
            raise InputError(
                f"{folder} was begun with other {split} data. Choose another --out, or bring back those rows."
            )
    if not (folder / "recipe.yaml").is_file():
        write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.resolved(), sort_keys=False))


def _claim_model(folder: Path, info: record.ModelInfo) -> None:
    """Adds the starting weights to the claim, or compares them: rounds of two models are no run."""
    claim = _read_claim(folder / _CLAIM)
    if claim["model"] is None:
        write_json(folder / _CLAIM, claim | {"model": info.weights_sha256})
    elif claim["model"] != info.weights_sha256:
        raise InputError(
            f"{folder} was begun with other weights of {info.name}. Choose another --out, or bring back those weights."
        )


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        claim = read_json(path)
        return {"recipe": claim["recipe"], "data": dict(claim["data"]), "model": claim.get("model")}
    except (DamagedFile, TypeError, KeyError, ValueError) as error:
        raise DamagedFile(f"{path} is damaged: whose run this is cannot be told. Choose another --out.") from error


def _finished(folder: Path) -> Record | None:
    return Record.load(folder) if (folder / record.RECORD_FILE).is_file() else None


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
