"""Locks and claims the folder of a run: one process, one recipe, one set of rows and one model at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from trainflat.commands.claims import CLAIM, Claim, claim_environment, compare_environment, read_claim, require_claim
from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import MANIFEST, WORKPLACES, is_sealed, verify, write_text, writing
from trainflat.core.processes import is_first_process
from trainflat.core.untrusted import read_text
from trainflat.core.yaml_values import parse_yaml
from trainflat.protocols import Protocol
from trainflat.protocols.store import STAGE, STAGES
from trainflat.recipe import Recipe
from trainflat.records.run import RECORD_FILE, Record
from trainflat.tasks.base import Task

RECIPE, LOCK = "recipe.yaml", ".lock"


class FolderInUse(InputError):
    """Another process is working in the folder of a run."""


@contextmanager
def opened(folder: Path, recipe: Recipe, task: Task) -> Iterator[Record | None]:
    """Locks and claims the run's folder for the block; yields its record where the run is complete.

    A call that is refused before it trained anything leaves nothing behind.

    Raises:
        InputError: the folder is in use, holds other things, or belongs to another recipe or to other data.
        DamagedFile: the run is complete, and a file of it is not what was written.
    """
    if not is_first_process():
        yield _finished(folder, recipe)
        return
    with writing(folder):
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        locked = (folder / LOCK).exists()
    with _locked(folder):
        claimed = (folder / CLAIM).exists()
        try:
            _claim(folder, recipe, task)
            yield _finished(folder, recipe)
        except BaseException:
            if not claimed:
                _withdraw(folder, made, locked=locked)
            raise


def is_locked(folder: Path) -> bool:
    """Returns whether a process is working in the folder of a run."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made where it is missing; released when the process ends, however it ends.

    Raises:
        FolderInUse: another process holds it.
        InputError: it cannot be made.
    """
    while True:
        with _lock_file(folder) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FolderInUse(
                    f"another process is working in {folder}. Wait for it, or change the recipe's name."
                ) from error
            # Between opening and locking, a call that was refused may have taken its lock file and folder away.
            if _is_at(folder / LOCK, lock):
                yield
                return


def _lock_file(folder: Path) -> IO[bytes]:
    while True:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the folder was just taken away
                return (folder / LOCK).open("ab")


def _is_at(path: Path, file: IO[bytes]) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _withdraw(folder: Path, made: list[Path], *, locked: bool) -> None:
    """Removes what a refused call wrote before it had anything to keep, and the folders that it made."""
    ours = {folder / LOCK, folder / CLAIM, folder / RECIPE}
    claimed = (folder / CLAIM).exists()
    kept = any(path.is_file() and path not in ours for path in folder.rglob("*"))
    if kept and claimed:  # checkpoints, stages: the next call continues
        return
    emptied = [path for path in sorted(folder.rglob("*"), reverse=True) if claimed and path.is_dir()]
    _remove_empty(emptied)
    # The claim last, for without it nothing here would be ours if this is killed half-way.
    for path in [folder / RECIPE, folder / CLAIM] if claimed else []:
        path.unlink(missing_ok=True)
    if not locked:
        (folder / LOCK).unlink(missing_ok=True)
    _remove_empty(made)


def _remove_empty(places: list[Path]) -> None:
    for place in places:
        with suppress(OSError):  # it is not empty
            place.rmdir()


def look(folder: Path, recipe: Recipe, task: Task) -> None:
    """Raises what :func:`opened` would raise, without writing; ignores that another process may work there."""
    with writing(folder):
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if not nearest.is_dir():
            reason = errno.EEXIST if nearest == folder else errno.ENOTDIR
            raise OSError(reason, os.strerror(reason))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if (folder / CLAIM).is_file():
        _compare(folder, recipe, _told(task))
        _finished(folder, recipe)
    elif nearest == folder:
        _refuse_strangers(folder)


def _claim(folder: Path, recipe: Recipe, task: Task) -> None:
    """Writes the folder's claim, or compares it."""
    given, claim = _told(task), folder / CLAIM
    if not claim.is_file():
        _refuse_strangers(folder)
        Claim(recipe=recipe.hash, data=given).save(folder)  # first of all: without it nothing here is ours
    _compare(folder, recipe, given)
    if not (folder / RECORD_FILE).is_file():
        claim_environment(folder)
    if not (folder / RECIPE).is_file():
        write_text(folder / RECIPE, yaml.safe_dump(recipe.resolved(), sort_keys=False))


def _told(task: Task) -> dict[str, Any]:
    """Returns the fingerprints of the data, for a claim."""
    return {name: fingerprint.model_dump(mode="json") for name, fingerprint in task.fingerprints.items()}


def _refuse_strangers(folder: Path) -> None:
    if any(p.name != LOCK and not p.match(WORKPLACES) for p in folder.iterdir()):
        raise InputError(f"{folder} holds files that no run of this recipe wrote. Choose another --out or empty it.")


def _compare(folder: Path, recipe: Recipe, given: dict[str, Any]) -> None:
    """Refuses a folder that was claimed for another recipe or other data, or whose recipe file was changed."""
    before = read_claim(folder)
    if before.recipe != recipe.hash:
        raise InputError(f"{folder} holds the run of another recipe. Choose another --out or another name.")
    for split, fingerprint in given.items():
        if before.data.get(split, {}).get("sha256") != fingerprint["sha256"]:
            raise InputError(
                f"{folder} was begun with other {split} data. Choose another --out, or bring back those rows."
            )
    if not (folder / RECORD_FILE).is_file():
        compare_environment(folder, before)
    if (folder / RECIPE).is_file() and not _tells(folder / RECIPE, recipe):
        raise DamagedFile(f"{folder / RECIPE} is not what was written. Delete it: the next run writes it again.")


def _tells(path: Path, recipe: Recipe) -> bool:
    """Returns whether the file holds the recipe, whatever its ``report_to``."""
    expected = recipe.resolved()
    try:
        value = parse_yaml(read_text(path))
        expected["training"]["report_to"] = value["training"]["report_to"]
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return bool(value == expected)


def _finished(folder: Path, recipe: Recipe) -> Record | None:
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    known = Record.load(folder)
    if known.recipe_hash != recipe.hash:
        raise DamagedFile(f"{path} is the record of another recipe. Move it away and run the recipe again.")
    for name, files in _sealed(known, recipe.protocol.build()).items():
        move = f"Delete the folder {folder / name} and {path} to compute it again."
        verify(folder / name, known=files, move=move)
    return known


def require_whole(folder: Path, recipe: Recipe, result: Record) -> None:
    """Raises InputError where a part of a run was taken away before its record, which names it, is written."""
    require_claim(folder)
    for name in _sealed(result, recipe.protocol.build()):
        if not is_sealed(folder / name):
            raise InputError(f"{folder / name} was deleted while the run worked. Run it again to compute that again.")


def _sealed(known: Record, protocol: Protocol) -> dict[str, dict[str, str | None]]:
    """Lists the folders of a complete run with the files of each, and their hashes in the record."""
    sealed: dict[str, dict[str, str | None]] = {}
    for stage in known.stages:
        place = f"{STAGES}/{stage.name}"
        hashes = {name.removeprefix(f"{place}/"): digest for name, digest in stage.files.items()}
        sealed[place] = {STAGE: None, **hashes}
    for path in map(PurePosixPath, protocol.files()):
        if path.name != MANIFEST and path.parent.name:  # what lies beside the stages is no result
            sealed.setdefault(str(path.parent), {})[path.name] = None
    return sealed
