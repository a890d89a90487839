"""The folder of a run: one process, one recipe, one set of rows and one model at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from trainflat import record
from trainflat.errors import DamagedFile, InputError
from trainflat.files import read_json, write_json, write_text, writing
from trainflat.recipe import Recipe
from trainflat.record import Record
from trainflat.tasks.base import Task

CLAIM, _LOCK = "claim.json", ".lock"


@contextmanager
def opened(folder: Path, recipe: Recipe, task: Task) -> Iterator[Record | None]:
    """Holds the run's folder, which is this recipe's on this data; gives its record where it is complete."""
    if not is_first_process():
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
    claim = folder / CLAIM
    if not claim.is_file():
        if any(p.name != _LOCK and not p.match(f".{CLAIM}.*.tmp") for p in folder.iterdir()):
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


def claim_model(folder: Path, info: record.ModelInfo) -> None:
    """Adds the starting weights to the claim, or compares them: rounds of two models are no run."""
    claim = _read_claim(folder / CLAIM)
    if claim["model"] is None:
        write_json(folder / CLAIM, claim | {"model": info.weights_sha256})
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


def is_first_process() -> bool:
    """Whether this is the one of ``torchrun``'s processes that writes."""
    return os.environ.get("RANK", "0") == "0"
