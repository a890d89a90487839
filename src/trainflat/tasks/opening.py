"""Reads a data file as bytes and as text: unpacked, decoded, and bounded in size."""

import bz2
import codecs
import gzip
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from trainflat.core.errors import InputError

MOST_BYTES = 2**30  # unpacked; as Python strings a file takes several times its size
MOST_ROWS = 5_000_000
# Text compresses three- to tenfold, 200-fold hardly ever: from 64 MB on such a file is taken for a decompression bomb.
_BOMB, _RATIO = 2**26, 200
LARGE = "Set the task option `large: true` to read it all the same."
_POINTER = b"version https://git-lfs.github.com/spec/"  # begins the file that Git LFS leaves until data are fetched
_FAULTS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Shape:
    """Holds the user's options for reading a file; None means to detect.

    Attributes:
        columns: Column names of a delimited file without a header; nameless columns ("") are not read.
        separator: Field separator of a delimited file.
        encoding: Text encoding.
        large: Whether to read files above the size limits.
    """

    columns: tuple[str, ...] | None = None
    separator: str | None = None
    encoding: str | None = None
    large: bool = False


AS_FOUND = Shape()


def check_file(path: Path) -> None:
    """Checks that a path is a regular file; reading a pipe or a device might never end.

    Raises:
        InputError: there is no file, or it is of another kind.
    """
    try:
        str(path).encode()
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path!s:.200}. Check the path.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{path!s:.200} cannot be read: its name is not UTF-8. Rename it.") from error
    except (OSError, ValueError) as error:  # the name is too long, a folder above is closed to us, a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path!s:.200} cannot be read: {reason}. Check the path.") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a file. Give the file itself.")


def unpacked_name(path: Path) -> str:
    """Returns the name of a file without ``.gz`` or another suffix of a packed file."""
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def read_bytes(path: Path, *, large: bool = False) -> tuple[str, bytes]:
    """Reads and unpacks a file; returns its name without ``.gz`` and the bytes.

    Packing is detected by the first bytes, since downloads are often packed without the suffix, or the reverse.

    Raises:
        InputError: the file is damaged, above the size limits, a Git LFS pointer, or an archive of several files.
    """
    size = path.stat().st_size
    if size > MOST_BYTES and not large:
        raise InputError(f"{path} has {size / 1e9:.1f} GB, and reading it takes several times as much memory. {LARGE}")
    with path.open("rb") as file:
        if file.peek(len(_POINTER)).startswith(_POINTER):
            raise InputError(f"{path} is a Git LFS pointer, not the data. Fetch the data with `git lfs pull`.")
        unpack = next((opener for magic, opener in _PACKED.items() if file.peek(6).startswith(magic)), None)
        if unpack is None:
            return unpacked_name(path), file.read()
        try:
            packed = unpack(file)
            name = PurePath(packed.name).name if isinstance(packed, zipfile.ZipExtFile) else unpacked_name(path)
            return name, _bounded(packed, path, size, large=large)
        except _FAULTS as error:
            raise InputError(f"{path} cannot be unpacked: {error!s:.100}. Copy or pack it again.") from error


def _bounded(packed: IO[bytes], path: Path, size: int, *, large: bool) -> bytes:
    data = bytearray()
    while chunk := packed.read(2**20):
        data += chunk
        if not large and (len(data) > MOST_BYTES or len(data) > max(_BOMB, _RATIO * size)):
            raise InputError(
                f"{path} ({size:,} bytes) unpacks to more than {len(data) // 2**20} MB, as texts hardly do. {LARGE}"
            )
    return bytes(data)


def _open_zip(file: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    # macOS adds a folder of resource forks beside the file.
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise InputError(f"{file.name} is an Excel workbook. Save it as CSV.")
    if len(names) != 1:
        raise InputError(f"{file.name} holds {len(names)} files ({', '.join(names[:3]):.100}). Unpack the one to read.")
    return archive.open(names[0])


# Formats by their first bytes.
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"PK\x03\x04": _open_zip,
}
_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
# UTF-32 before UTF-16: the little-endian mark of UTF-32 begins with the mark of UTF-16.
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16"}
_MARKS |= {codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_BE: "utf-16"}


def decode(path: Path, data: bytes, encoding: str | None = None) -> str:
    """Decodes a file with the given encoding, else by its byte order mark, else as UTF-8.

    Raises:
        InputError: the bytes are not in that encoding, or hold a NUL byte, a sign of UTF-16 without a mark.
    """
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding or marked).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        move = "Name another" if encoding else "Name it, such as `encoding: cp1252`, or convert the file to UTF-8"
        raise InputError(
            f"{path}: line {line} is not {error.encoding.upper()} (byte 0x{data[error.start]:02x}). {move}."
        ) from error
    except (LookupError, ValueError) as error:  # also codecs between bytes, such as zlib
        raise InputError(f"{encoding!r:.60} is no text encoding. Name one such as utf-8 or cp1252.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(
            f"{path}: line {line} holds a NUL byte. Name the file's encoding if it is UTF-16 (`encoding: utf-16-le`), "
            "or write it again as plain UTF-8 text."
        )
    return text
