"""The folder of a run: one process, one recipe, one set of rows and one model at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from trainflat.errors import DamagedFile, InputError
from trainflat.files import read_json, verify, write_json, write_text, writing
from trainflat.processes import is_first_process
from trainflat.protocols.bench import STAGES
from trainflat.recipe import Recipe
from trainflat.record import RECORD_FILE, ModelInfo, Record
from trainflat.tasks.base import Task

CLAIM, RECIPE, _LOCK = "claim.json", "recipe.yaml", ".lock"


@contextmanager
def opened(folder: Path, recipe: Recipe, task: Task) -> Iterator[Record | None]:
    """Holds the run's folder, which is this recipe's on this data; gives its record where it is complete.

    A call that is refused before it trained anything leaves nothing behind.

    Raises:
        InputError: the folder is in use, holds other things, or belongs to another recipe or to other data.
        DamagedFile: the run is complete, and a file of it is not what was written.
    """
    if not is_first_process():
        yield _finished(folder)
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    locked = (folder / _LOCK).exists()
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
        claimed = (folder / CLAIM).exists()
        try:
            _claim(folder, recipe, task)
            yield _finished(folder)
        except BaseException:
            if not claimed:
                _withdraw(folder, made, locked=locked)
            raise


def _withdraw(folder: Path, made: list[Path], *, locked: bool) -> None:
    """Takes back what a call wrote that was refused before it had anything to keep, and the folders that it made."""
    ours = {folder / _LOCK, folder / CLAIM, folder / RECIPE}
    claimed = (folder / CLAIM).exists()
    kept = any(path.is_file() and path not in ours for path in folder.rglob("*"))
    if kept and claimed:  # checkpoints, stages: the next call continues
        return
    for path in [folder / RECIPE, folder / CLAIM] if claimed else []:  # without a claim the recipe is not ours
        path.unlink(missing_ok=True)
    if not locked:
        (folder / _LOCK).unlink(missing_ok=True)
    emptied = [path for path in sorted(folder.rglob("*"), reverse=True) if claimed and path.is_dir()]
    for place in [*emptied, *made]:
        with suppress(OSError):  # it is not empty
            place.rmdir()


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
    if not (folder / RECIPE).is_file():
        write_text(folder / RECIPE, yaml.safe_dump(recipe.resolved(), sort_keys=False))


def claim_model(folder: Path, info: ModelInfo) -> None:
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
    if not (folder / RECORD_FILE).is_file():
        return None
    known = Record.load(folder)
    for stage in known.stages:
        place = folder / STAGES / stage.name
        verify(place, again=f"the folder {place} and {folder / RECORD_FILE}")
    return known
