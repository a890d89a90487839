"""Recognises the files that a report wrote: only these are replaced or deleted."""

from contextlib import suppress
from pathlib import Path

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import read_json

_HEAD = 8192  # bytes in which every format holds what is said of a file
# How files begin that carry no mark, for their format has no place for one or an earlier version left it out.
_BEGINNINGS = {
    ".html": b"<title>trainflat ",
    ".csv": b"task,data,model,",
    ".md": b"Unstructured zeros alone do not speed up dense kernels",
}


def mark(path: Path) -> str:
    """Returns the mark that a written file carries in its metadata."""
    return f"trainflat report: {path.name}"


def is_ours(path: Path) -> bool:
    """Returns whether a report wrote this file, under this name."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return mark(path).encode() in file.read(_HEAD)


def refuse_foreign(made: Path, out: Path) -> None:
    """Raises InputError where a new file would replace one in ``out`` that no report wrote.

    Args:
        made: Folder with the files that are to take their places in ``out``.
        out: That folder.

    Raises:
        InputError: names the first such file.
    """
    for name in sorted(path.name for path in made.iterdir() if path.is_file()):
        path = out / name
        if path.exists() and not is_ours(path) and not _was_ours(path):
            raise InputError(f"{path} is there already, and no report of trainflat. It stays; choose another --out.")


def _was_ours(path: Path) -> bool:
    if path.suffix == ".json":
        with suppress(DamagedFile):
            value = read_json(path)
            return isinstance(value, dict) and "format" in value
        return False
    if path.suffix not in _BEGINNINGS or not path.is_file():
        return False
    with path.open("rb") as file:
        return _BEGINNINGS[path.suffix] in file.read(_HEAD)
