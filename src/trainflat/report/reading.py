"""Finds the records of finished runs on disk."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainflat.errors import InputError
from trainflat.record import RECORD_FILE, Record

RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Found:
    """What lies below some paths."""

    records: list[Record]  # each run once, in a fixed order
    unfinished: list[Path]  # folders of runs that have not written their record yet


def find_records(paths: Iterable[Path]) -> Found:
    """Reads every record at or below ``paths``: record files, run folders, or folders of them at any depth.

    Copies of one run (the same digest) count once. The order depends on the records only, not on where they lie.

    Raises:
        InputError: a path does not exist, or no record is there.
        DamagedFile: a record is not what was written.
    """
    paths = list(paths)
    files: list[Path] = []
    unfinished: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(
                f"there is nothing at {path}. Name a record.json, the folder of a run, or a folder of runs."
            )
        here = [path] if path.is_file() else list(_record_files(path))
        files += here
        unfinished += _unfinished(path, here)
    records = {record.digest: record for record in map(Record.load, files)}
    if not records:
        raise InputError(_nothing(paths, unfinished))
    return Found(sorted(records.values(), key=_order), sorted(set(unfinished)))


def read_records(paths: Iterable[Path]) -> list[Record]:
    """The records at or below ``paths``; see :func:`find_records`."""
    return find_records(paths).records


def _record_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if RECORD_FILE in files:
            folders.clear()  # below a run lie only its own stages
            yield Path(place) / RECORD_FILE


def _unfinished(path: Path, records: list[Path]) -> list[Path]:
    if path.is_file():
        return []
    started = {recipe.parent for recipe in path.rglob(RECIPE_FILE)}
    done = {parent for record in records for parent in record.parents}
    return [folder for folder in started if folder not in done]


def _nothing(paths: list[Path], unfinished: list[Path]) -> str:
    where = ", ".join(map(str, paths)) or "no path"
    if unfinished:
        return f"no run at {where} is finished. Run the recipe of {sorted(unfinished)[0]} again to finish it."
    return f"there is no {RECORD_FILE} at or below {where}. Name the folder that `trainflat run` wrote."


def _order(record: Record) -> tuple[str, str, str, str, str, int, str]:
    return (
        record.task.name,
        record.model.name,
        record.protocol,
        record.optimizer,
        record.recipe_hash,
        record.seed,
        record.digest,
    )
