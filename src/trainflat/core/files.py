"""Writes files atomically, seals folders with hashes, and verifies them."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open

from trainflat.core.errors import DamagedFile, InputError, one_line
from trainflat.core.untrusted import parse_json, read_text, validated

if TYPE_CHECKING:  # records and reports are read without torch
    from torch import Tensor

T = TypeVar("T")

# Pattern of the temporary folders' names. The target's name is not in them: a long one would exceed what the file
# system allows.
WORKPLACES = ".trainflat-*.tmp"

# Parts of the messages with which torch.save (a RuntimeError) and tokenizers (a bare Exception) report a full disk.
_FULL_DISK = ("inline_container", "iostream error", "(os error ")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns OSErrors of the block, such as a full disk, into an InputError of one line.

    Raises:
        InputError: the disk is full or the folder cannot be written; names the path.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not (
            isinstance(error, OSError | SafetensorError) or any(sign in str(error) for sign in _FULL_DISK)
        ):
            raise
        text = str(error).split("\n", maxsplit=1)[0]
        reason = getattr(error, "strerror", None) or f"the disk may be full ({text})"
        shown = Path(*(part for part in path.parts if not fnmatch(part, WORKPLACES)))  # the target, not the temporary
        raise InputError(f"cannot write {shown}: {reason}. Free some space or choose another --out.") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place when the block ends, and vanishes if it raises.

    Raises:
        InputError: the disk is full or the folder cannot be written; names the path.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with workplace(path.parent) as place:  # beside the target: a rename is atomic within one file system only
            temporary = place / "file"
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode  # by the umask
            yield temporary
            temporary.chmod(mode)  # safetensors leaves 0600, which would hide results from colleagues
            temporary.replace(path)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder for files that belong together; they move to ``folder`` when the block ends.

    Files of other names in ``folder`` stay. Nothing changes if the block raises or is killed; a kill while the files
    are moved, which takes one rename per file, can leave some of them behind.

    Raises:
        InputError: the disk is full or the folder cannot be written; names the folder.
    """
    with writing(folder):
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with workplace(folder) as place:
                yield place
                _take_places(place, folder)
        except BaseException:
            with suppress(OSError):  # another process has put something into it
                for each in made:
                    each.rmdir()
            raise


def _take_places(place: Path, folder: Path) -> None:
    moves = {path: folder / path.relative_to(place) for path in sorted(place.rglob("*")) if path.is_file()}
    for target in moves.values():  # all that can fail comes before the first rename
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{target.name} is a folder")
    for path, target in moves.items():
        path.replace(target)


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """Yields a new empty folder in ``parent`` for unfinished files; it is deleted when the block ends.

    The folder is locked meanwhile. The kernel releases the lock however the process ends, so folders in ``parent`` that
    nobody locks are left over from killed processes; they are deleted first.
    """
    for left in parent.glob(WORKPLACES):
        with _held(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as dead:
            if dead:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        place = parent / WORKPLACES.replace("*", secrets.token_hex(8))
        place.mkdir()
        with _held(place, fcntl.LOCK_SH) as _:
            if not place.exists():  # deleted by another process before it was locked
                continue
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return


@contextmanager
def _held(folder: Path, how: int) -> Iterator[bool]:
    """Locks a folder for the block; yields False where the file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # deleted meanwhile, of another user, or no folder
        yield False
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, how)
            how = 0  # locked
        yield how == 0
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8; undecodable bytes of file names are escaped."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else the rename may reach the disk before the content does


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; the same value always gives the same bytes. NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


# The file may be the user's own, named by mistake, so the message does not advise to delete it.
MOVE = "If trainflat wrote it, it is damaged: move it away and repeat the command that made it."


def read_json(path: Path, *, finite: bool = True) -> Any:
    """Reads JSON that this package wrote.

    Args:
        path: The file.
        finite: Whether to refuse NaN and infinity, which JSON has not but Python's json reads.

    Raises:
        DamagedFile: the file is not JSON, or cannot be read.
    """
    try:
        return parse_json(read_text(path), finite=finite)
    except (ValueError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read ({one_line(error)}). {MOVE}") from error


def read_as(path: Path, kind: type[T], what: str, *, finite: bool = True) -> T:
    """Reads JSON that this package wrote, validated as a type.

    Args:
        path: The file.
        kind: Type that pydantic validates the value as.
        what: Name of the type in messages, such as ``"a record"``.
        finite: As in :func:`read_json`.

    Raises:
        DamagedFile: the file is not JSON, cannot be read, or does not have the keys and values of ``kind``.
    """
    found: T = validated(read_json(path, finite=finite), kind, f"{path} is not {what}", MOVE)
    return found


def hash_json(value: Any) -> str:
    """Hashes the canonical JSON of a value by SHA-256; 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Hashes a file's content by SHA-256; 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_METADATA = "trainflat"


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as safetensors, atomically; the same content always gives the same bytes."""
    from safetensors.torch import save_file

    # One entry, because safetensors writes several in an order that differs from call to call.
    header = {_METADATA: json.dumps(dict(metadata or {}), sort_keys=True)}
    with atomic(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, header)


def load_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Reads tensors and metadata of a safetensors file; nothing is unpickled.

    Raises:
        DamagedFile: the file is missing, truncated or not safetensors.
    """
    try:
        if not path.is_file():  # a pipe would block until somebody writes into it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with safe_open(path, framework="pt") as file:
            metadata = parse_json((file.metadata() or {}).get(_METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({one_line(error)}). {MOVE}") from error
    return tensors, validated(metadata, dict[str, str], f"{path} has metadata that nobody here wrote", MOVE)


MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Writes the SHA-256 of every file below ``folder`` into its manifest; a folder without one is unfinished."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_json(folder / MANIFEST, {str(p.relative_to(folder)): hash_file(p) for p in files})


def is_sealed(folder: Path) -> bool:
    """Returns whether a folder has a manifest, so is finished."""
    return (folder / MANIFEST).is_file()


def verify(folder: Path, *, known: Mapping[str, str | None] | None = None, move: str | None = None) -> None:
    """Compares every file below ``folder`` with the hashes in its manifest.

    Args:
        folder: A sealed folder.
        known: Files that the manifest must list, with their hashes if these are recorded elsewhere, else None.
        move: Sentence that says what to do about damage; by default to delete the folder.

    Raises:
        DamagedFile: names the first file that is missing or differs.
    """
    move = move or f"Delete the folder {folder} to compute it again."
    for name, digest in _manifest(folder, known or {}, move).items():
        path = folder / name
        if not path.is_file() or hash_file(path) != digest:
            state = "differs from what was written" if path.is_file() else "is missing"
            raise DamagedFile(f"{path} {state}. {move}")


def _manifest(folder: Path, known: Mapping[str, str | None], move: str) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        value = read_json(path)
    except DamagedFile:
        value = None
    # An empty manifest would verify anything, and nothing that is sealed is empty.
    if not isinstance(value, dict) or not value or not all(map(_is_inside, value)) or not _agrees(value, known):
        state = "is not what was written" if path.is_file() else "is missing"
        raise DamagedFile(f"{path} {state}. {move}")
    return value


def _agrees(manifest: Mapping[str, str], known: Mapping[str, str | None]) -> bool:
    return all(name in manifest and digest in (None, manifest[name]) for name, digest in known.items())


def _is_inside(name: str) -> bool:
    """Returns whether a manifest may name a path: of usual length and below its folder, as folders come from others."""
    path = Path(name)
    return len(name) < 256 and not path.is_absolute() and ".." not in path.parts


def remove(folder: Path) -> None:
    """Deletes a folder, its manifest first, so that a kill half-way leaves an unfinished folder, not a damaged one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
