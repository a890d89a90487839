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

MOST_BYTES = 2**30  # of a file, unpacked
MOST_ROWS = 5_000_000
_BOMB, _RATIO = 2**26, 200  # bytes from which on, and how many times its own size, no packed file of texts unpacks to
LARGE = "Set the task option `large: true` to read it all the same."
_FAULTS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Shape:
    """Holds what a user says of a file's form; None leaves it to the file.

    Attributes:
        columns: Names of the columns of a delimited file without a header; nameless ones ("") are not read.
        separator: Between the fields of a delimited file.
        encoding: Of the text.
        large: Read also what is larger than expected.
    """

    columns: tuple[str, ...] | None = None
    separator: str | None = None
    encoding: str | None = None
    large: bool = False


AS_FOUND = Shape()


def check_file(path: Path) -> None:
    """Checks that a path is a file, and no folder, pipe or device, which might never end.

    Raises:
        InputError: there is none, or something else.
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


def read_bytes(path: Path, *, large: bool = False) -> tuple[str, bytes]:
    """Reads and unpacks a file, detected by its first bytes; returns the name without ``.gz`` and the bytes.

    Raises:
        InputError: it is damaged, larger than expected, or an archive of several files.
    """
    size = path.stat().st_size
    if size > MOST_BYTES and not large:
        raise InputError(f"{path} has {size / 1e9:.1f} GB, which needs several times that of memory. {LARGE}")
    with path.open("rb") as file:
        unpack = next((opener for magic, opener in _PACKED.items() if file.peek(6).startswith(magic)), None)
        name = path.stem if path.suffix.lower() in _SUFFIXES else path.name
        if unpack is None:
            return name, file.read()
        try:
            inside, packed = unpack(file, path)
            return inside or name, _bounded(packed, path, size, large=large)
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


def _open_zip(file: IO[bytes], path: Path) -> tuple[str, IO[bytes]]:
    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path} is an Excel workbook. Save it as CSV.")
    if len(names) != 1:
        raise InputError(f"{path} holds {len(names)} files ({', '.join(names[:3]):.100}). Unpack the one to read.")
    return PurePath(names[0]).name, archive.open(names[0])


def _stream(opener: Callable[[Any], Any]) -> Callable[[IO[bytes], Path], tuple[str, IO[bytes]]]:
    return lambda file, path: ("", opener(file))


_PACKED: dict[bytes, Callable[[IO[bytes], Path], tuple[str, IO[bytes]]]] = {
    b"\x1f\x8b": _stream(lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": _stream(bz2.BZ2File),
    b"\xfd7zXZ": _stream(lzma.LZMAFile),
    b"PK\x03\x04": _open_zip,
}
_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16"}
_MARKS |= {codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_BE: "utf-16"}


def decode(path: Path, data: bytes, encoding: str | None = None) -> str:
    """Decodes a file: by the encoding given, its byte order mark, or UTF-8.

    Raises:
        InputError: it is not, or holds a NUL byte.
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
    except (LookupError, ValueError) as error:  # also codecs that are not of texts
        raise InputError(f"{encoding!r:.60} is no encoding of texts. Name one such as utf-8 or cp1252.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(
            f"{path}: line {line} holds a NUL byte. Name the file's encoding if it is UTF-16 (`encoding: utf-16-le`), "
            "or write it again as plain UTF-8 text."
        )
    return text
