"""Finds the records of finished runs on disk, and the loss landscapes that lie beside them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from trainflat.core.errors import InputError
from trainflat.records.landscape import PATTERN, Landscape, load_landscape
from trainflat.records.run import RECORD_FILE, Record

RECIPE_FILE = "recipe.yaml"
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """Holds the records and landscapes found below some paths."""

    records: list[Record]  # each run once, in a fixed order
    unfinished: list[Path]  # folders of runs that have not written their record yet
    landscapes: Sequence[Landscape] = ()
    left_out: Sequence[str] = ()  # why files that cannot be read are not among them


def find_records(paths: Iterable[Path]) -> Found:
    """Reads every record at or below ``paths``: record files, run folders, or folders of them at any depth.

    Copies of one run (the same digest) count once. The order depends on the records only, not on where they lie.

    Raises:
        InputError: a path does not exist, or no record is there.
        DamagedFile: a record is not what was written.
    """
    paths = list(paths)
    files, unfinished = _record_files(paths)
    records = _records(map(Record.load, files))
    if not records:
        raise InputError(_nothing(paths, unfinished))
    return Found(records, unfinished)


def find_results(paths: Iterable[Path]) -> Found:
    """Reads every record and landscape at or below ``paths``, and goes on without those that cannot be read.

    Raises:
        InputError: a path does not exist, or nothing is there.
        DamagedFile: of what is there nothing can be read.
    """
    paths = list(paths)
    files, unfinished = _record_files(paths)
    faults: list[InputError] = []

    def readable(load: Callable[[Path], T], files: Iterable[Path]) -> Iterator[T]:
        for file in files:
            try:
                yield load(file)
            except InputError as error:
                faults.append(error)

    records = _records(readable(Record.load, files))
    landscapes = _landscapes(readable(load_landscape, _landscape_files(paths)))
    if not records and not landscapes:
        raise faults[0] if faults else InputError(_nothing(paths, unfinished))
    return Found(records, unfinished, landscapes, list(map(str, faults)))


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Returns the records at or below ``paths``; see :func:`find_records`."""
    return find_records(paths).records


def find_landscapes(paths: Iterable[Path]) -> list[Landscape]:
    """Reads every ``landscape-*.json`` in the folders of runs, and in folders above them, at or below ``paths``.

    Copies count once. The order depends on the landscapes only, not on where they lie.

    Raises:
        InputError: another version of trainflat wrote one.
        DamagedFile: a file of that name is something else, or not what was written.
    """
    return _landscapes(map(load_landscape, _landscape_files(paths)))


def _record_files(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Returns files of records, and folders of runs that have none yet."""
    files: list[Path] = []
    unfinished: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(
                f"there is nothing at {path}. Name a record.json, the folder of a run, or a folder of runs."
            )
        here = _files(path, RECORD_FILE)
        done = {parent for record in here for parent in record.parents}
        unfinished |= {recipe.parent for recipe in path.rglob(RECIPE_FILE)} - done
        files += here
    return files, sorted(unfinished)


def _landscape_files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in _files(path, PATTERN)]


def _files(path: Path, pattern: str) -> list[Path]:
    """Returns the files of a name at or below a path; a file stands for itself, if it is not of the other kind."""
    if path.is_file():
        return [path] if path.match(PATTERN) == (pattern == PATTERN) else []
    found = []
    for place, folders, files in os.walk(path):
        found += [Path(place) / name for name in sorted(files) if fnmatch(name, pattern)]
        # Below a run lie only its own stages.
        folders[:] = [] if RECORD_FILE in files else sorted(name for name in folders if not name.startswith("."))
    return found


def _records(found: Iterable[Record]) -> list[Record]:
    def order(record: Record) -> tuple[object, ...]:
        who = record.task.name, record.model.name, record.protocol, record.optimizer
        return *who, record.recipe_hash, record.seed, record.digest

    return sorted({record.digest: record for record in found}.values(), key=order)


def _landscapes(found: Iterable[Landscape]) -> list[Landscape]:
    known = {landscape.model_dump_json(): landscape for landscape in found}
    return [known[key] for key in sorted(known)]


def _nothing(paths: list[Path], unfinished: list[Path]) -> str:
    where = ", ".join(map(str, paths)) or "no path"
    if unfinished:
        return f"no run at {where} is finished. Run the recipe of {sorted(unfinished)[0]} again to finish it."
    return (
        f"there is no {RECORD_FILE} at or below {where}, and no {PATTERN}. Name the folder that `trainflat run` wrote."
    )
