"""Files of rows (CSV, TSV, JSON, JSON lines, parquet), checked: whatever is wrong with one is said in one line."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from trainflat.errors import InputError

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        where: What messages call it: the path of the file, or its place on the hub.
        columns: Values by column name; a missing value is None (in CSV and TSV: an empty string).
        source: What fingerprints call it, without the folder, so that records compare between machines.
    """

    where: str
    columns: Columns
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[Any]:
        """The values of one column.

        Raises:
            InputError: there is no such column; names the nearest.
        """
        if name in self.columns:
            return self.columns[name]
        near = get_close_matches(name, self.columns, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{self.where}: no column is called {name!r}.{hint} Columns: {', '.join(self.columns)}.")

    def texts(self, name: str, *, allow_empty: bool = False) -> list[str]:
        """The values of a column of text.

        Raises:
            InputError: one of them is missing, not a string, empty, or holds what is no text.
        """
        values = self.column(name)
        for row, value in enumerate(values):
            if value is None:
                raise self.fault(row, name, "the text is missing. Fill it or drop the row.")
            if not isinstance(value, str):
                raise self.fault(row, name, f"{value!r:.60} is not a text. Write it as a string.")
            if not value.strip() and not allow_empty:
                raise self.fault(row, name, "the text is empty. Fill it or drop the row.")
            if "\0" in value:
                raise self.fault(row, name, "the text holds a NUL byte. Remove it.")
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise self.fault(row, name, "the text holds half of a surrogate pair. Write the file as UTF-8.")
        return values

    def fault(self, row: int, column: str, problem: str) -> InputError:
        """The error for one cell; rows are counted from 1, without the header."""
        return InputError(f"{self.where}: row {row + 1}, column {column!r}: {problem}")


def read_table(path: Path) -> Table:
    """Reads a file by its suffix.

    TSV has no quoting, as GLUE's files, unless the whole file shows that it was written with it.
    ``.json`` holds a list of objects or one object per line.

    Raises:
        InputError: no such file, a suffix that is not known, no rows, or not what the suffix says.
    """
    _check_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: files that end in {path.suffix!r} cannot be read. Use one of {', '.join(READERS)}.")
    try:
        size = path.stat().st_size
        columns = reader(path) if size else {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the file.") from error
    if not size:
        raise InputError(f"{path} is empty. Write a header and rows.")
    table = Table(str(path), columns, f"file:{path.name}")
    if not len(table):
        raise InputError(f"{path} has no rows, at most a header. Add rows.")
    return table


def _check_file(path: Path) -> None:
    try:
        there, plain = path.exists(), path.is_file()
    except OSError as error:  # the name is too long, a folder above is closed to us
        raise InputError(f"{path!s:.200} cannot be read: {error.strerror or error}. Check the path.") from error
    if not there:
        raise InputError(f"there is no file {path}. Check the path.")
    if not plain:
        raise InputError(f"{path} is not a file. Give the file itself.")


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}). Convert the file to UTF-8."
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}: line {line} holds a NUL byte. Write the file again as plain UTF-8 text.")
    return text


def _read_csv(path: Path) -> Columns:
    try:
        return _columns(path, _parse(_read_text(path), delimiter=","))
    except csv.Error as error:
        raise InputError(f"{path}: {error}. Check the quotes of that row.") from error


def _read_tsv(path: Path) -> Columns:
    text = _read_text(path)
    plain = _parse(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        quoted = _parse(text, delimiter="\t")
    except csv.Error:
        return _columns(path, plain)
    # A sentence may be all in quotation marks, which a reader of quoted fields would silently take away. Marks are
    # quoting only if every field fits them and something shows it: a quoted header, doubled marks, a tab in a field.
    shown = text.startswith('"') or '""' in text or _ragged(plain) is not None
    return _columns(path, quoted if shown and _ragged(quoted) is None else plain)


Lines = list[tuple[int, list[str]]]  # line number and fields


def _parse(text: str, *, delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Lines:
    # Without strict, a quote that is never closed would swallow all rows that follow it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    lines: Lines = []
    start = 1
    limit = csv.field_size_limit(len(text) + 1)  # the default refuses texts of more than 128 KiB
    try:
        for fields in reader:
            if fields:
                lines.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {start}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return lines


def _ragged(lines: Lines) -> tuple[int, list[str]] | None:
    return next(((line, fields) for line, fields in lines if len(fields) != len(lines[0][1])), None)


def _columns(path: Path, lines: Lines) -> Columns:
    if not lines:
        raise InputError(f"{path} holds only blank lines. Write a header and rows.")
    header = lines[0][1]
    bad = _ragged(lines)
    if bad is not None:
        raise InputError(
            f"{path}: line {bad[0]} has {len(bad[1])} fields, the header has {len(header)}. "
            "Put fields that hold the separator in quotation marks."
        )
    _check_names(path, header)
    values = list(zip(*(fields for _, fields in lines[1:]), strict=True)) or [()] * len(header)
    return {name: list(column) for name, column in zip(header, values, strict=True)}


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"{path} has the column {_repeated(names)!r} twice. Rename one.")


def _repeated(names: Sequence[str]) -> str:
    return next(name for i, name in enumerate(names) if name in names[:i])


@dataclass(frozen=True)
class _Ambiguous:
    """An object of which JSON's own reader would silently keep the last of two values."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Ambiguous:
    row = dict(pairs)
    return row if len(row) == len(pairs) else _Ambiguous(_repeated([name for name, _ in pairs]))


def _read_json(path: Path) -> Columns:
    text = _read_text(path)
    if not text.lstrip().startswith("["):
        return _read_jsonl(path)
    try:
        rows = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. Write a list of objects, or one object per line.") from error
    return _gather(path, [(f"entry {number}", row) for number, row in enumerate(rows, 1)])


def _read_jsonl(path: Path) -> Columns:
    rows = []
    # Not splitlines(): it also splits at U+2028 and others, which JSON allows inside strings.
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line, object_pairs_hook=_object)))
            except (ValueError, RecursionError) as error:
                message = f"{path}: line {number} is not JSON ({error}). Write one object per line."
                raise InputError(message) from error
    return _gather(path, rows)


def _gather(path: Path, rows: list[tuple[str, Any]]) -> Columns:
    for place, row in rows:
        if isinstance(row, _Ambiguous):
            raise InputError(f"{path}: {place} has the key {row.key!r} twice. Rename one.")
        if not isinstance(row, dict):
            raise InputError(
                f'{path}: {place} is {row!r:.60}, not an object. Write objects like {{"text": ..., "label": ...}}.'
            )
    names = dict.fromkeys(name for _, row in rows for name in row)
    return {name: [row.get(name) for _, row in rows] for name in names}


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        # Not read_table(): it takes folder names such as lang=en for columns.
        with ParquetFile(path) as file:
            names, columns = file.schema_arrow.names, file.read().to_pydict()
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        raise InputError(f"{path} is not a whole parquet file: {reason}. Copy or write it again.") from error
    _check_names(path, names)
    return dict(columns)


READERS: dict[str, Callable[[Path], Columns]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
}
