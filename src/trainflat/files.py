"""Files that are either whole or not there, and that show when they were damaged."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from trainflat.errors import DamagedFile, InputError

if TYPE_CHECKING:  # records and reports are read without torch
    from torch import Tensor

# How torch.save (RuntimeError) and tokenizers (a bare Exception) tell of a full disk.
_FULL_DISK = ("inline_container", "iostream error", "(os error ")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a full disk or a closed folder raises inside the block into one line.

    Raises:
        InputError: the disk is full or the folder cannot be written; names the path.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError | SafetensorError) or any(sign in str(error) for sign in _FULL_DISK)):
            raise
        text = str(error).split("\n", maxsplit=1)[0]
        reason = getattr(error, "strerror", None) or f"the disk may be full ({text})"
        raise InputError(f"cannot write {path}: {reason}. Free some space or choose another --out.") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place when the block ends, and vanishes if it raises.

    Raises:
        InputError: the disk is full or the folder cannot be written; names the path.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # as the umask gives it
        try:
            yield temporary
            temporary.chmod(mode)  # safetensors leaves 0600, which would hide results from colleagues
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; the same value always gives the same bytes. NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


# The file may well be the user's own, named by mistake: nobody is told to delete it.
MOVE = "If trainflat wrote it, it is damaged: move it away and repeat the command that made it."


def read_json(path: Path) -> Any:
    """Reads JSON that this package wrote.

    Raises:
        DamagedFile: it is not JSON, or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except (ValueError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). {MOVE}") from error


def hash_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
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
    """Tensors and metadata of a safetensors file; nothing is unpickled.

    Raises:
        DamagedFile: the file is missing, truncated or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({error}). {MOVE}") from error


MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Writes the hash of every file below ``folder`` into its manifest. A folder without one is unfinished."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_json(folder / MANIFEST, {str(p.relative_to(folder)): hash_file(p) for p in files})


def is_sealed(folder: Path) -> bool:
    """Whether the folder was finished."""
    return (folder / MANIFEST).is_file()


def verify(folder: Path, *, known: Mapping[str, str | None] | None = None, move: str | None = None) -> None:
    """Compares every file with the manifest.

    Args:
        known: Files that the manifest must list, and their hashes where somebody else tells them.
        move: What to do about damage, as a sentence; by default to delete the folder.

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
        value = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, OSError, RecursionError):
        value = None
    # Nothing that is sealed is empty.
    if not isinstance(value, dict) or not value or not all(map(_is_inside, value)) or not _agrees(value, known):
        state = "is not what was written" if path.is_file() else "is missing"
        raise DamagedFile(f"{path} {state}. {move}")
    return value


def _agrees(manifest: Mapping[str, str], known: Mapping[str, str | None]) -> bool:
    return all(name in manifest and digest in (None, manifest[name]) for name, digest in known.items())


def _is_inside(name: str) -> bool:
    """Whether a manifest may name it: a path of usual length that stays below its folder."""
    path = Path(name)
    return len(name) < 256 and not path.is_absolute() and ".." not in path.parts


def remove(folder: Path) -> None:
    """Deletes a folder, its manifest first, so that a kill half-way leaves an unfinished folder, not a damaged one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
