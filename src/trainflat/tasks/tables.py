"""Reads and checks files of rows (CSV, TSV, JSON, JSON lines, parquet); each fault is one line."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from trainflat.core.errors import InputError
from trainflat.core.untrusted import parse_json
from trainflat.tasks.delimited import check_names, read_delimited
from trainflat.tasks.opening import AS_FOUND, LARGE, MOST_BYTES, MOST_ROWS, Shape, check_file, decode, read_bytes

Columns = dict[str, list[Any]]
Read = tuple[Columns, tuple[str, ...]]  # with notes on what was detected
Reader = Callable[[Path, bytes, Shape], Read]


@dataclass(frozen=True)
class Table:
    """Holds columns of equal length.

    Attributes:
        where: Path of the file or place on the hub, for messages.
        columns: Values by column name; a missing value is None (in CSV and TSV an empty string).
        source: Name for fingerprints, without the folder, so that records of different machines compare.
        notes: Sentences on what was detected while reading.
        numbers: Row numbers in the file, from 1, if rows were dropped.
    """

    where: str
    columns: Columns
    source: str
    notes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[Any]:
        """Returns the values of one column.

        Raises:
            InputError: there is no such column; suggests the nearest name.
        """
        if name in self.columns:
            return self.columns[name]
        names = [one for one in self.columns if len(one) <= 100]  # get_close_matches is quadratic in the length
        near = get_close_matches(name[:100], names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(f"{one:.60}" for one in list(self.columns)[:20]) + (", ..." if len(self.columns) > 20 else "")
        delimited = any(suffix in self.source for suffix in (".csv", ".tsv"))
        headless = " If that is its first row, the file has no header: name its `columns`." if delimited else ""
        raise InputError(f"{self.where}: no column is called {name!r:.60}.{hint} Columns: {shown}.{headless}")

    def texts(self, name: str, *, allow_empty: bool = False) -> list[str]:
        """Returns the values of a column of text.

        Raises:
            InputError: a value is missing, not a string, empty, or holds a NUL byte (a sign of another encoding)
                or half of a surrogate pair (on which tokenizers fail).
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
        """Makes the error for one cell; rows are counted from 1, without the header."""
        number = self.numbers[row] if self.numbers else row + 1
        return InputError(f"{self.where}: row {number}, column {column!r:.60}: {problem}")


def without_rows(table: Table, kept: Sequence[int], note: str) -> Table:
    """Selects rows of a table and adds a note on the rows that were dropped. Raises InputError if no row is kept."""
    if len(kept) == len(table):
        return table
    if not kept:
        raise InputError(f"{table.where}: {note}: none is left. Name the column of the labels.")
    columns = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    said = f"{Path(table.where).name}: {note}."
    return Table(table.where, columns, table.source, (*table.notes, said), tuple(row + 1 for row in kept))


def without_blank_end(table: Table) -> Table:
    """Drops rows at the end whose cells are all empty, as spreadsheets write rows that were once used and cleared."""

    def is_blank(row: int) -> bool:
        cells = (values[row] for values in table.columns.values())
        return all(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in cells)

    end = len(table)
    while end > 1 and is_blank(end - 1):
        end -= 1
    return without_rows(table, range(end), f"the last {len(table) - end} of {len(table)} rows are empty and left out")


def read_table(path: Path, shape: Shape = AS_FOUND) -> Table:
    """Reads a file in the format of its suffix, also packed (``reviews.csv.gz``).

    TSV has no quoting, like GLUE's files, unless all of the file fits only with quoting. ``.json`` holds a list of
    objects or one object per line.

    Raises:
        InputError: there is no such file, its suffix is unknown, it has no rows, or it is not in that format.
    """
    check_file(path)
    try:
        name, data = read_bytes(path, large=shape.large)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the file.") from error
    if not data:
        raise InputError(f"{path} is empty. Write a header and rows.")
    columns, notes = _reader(path, name, data, shape)(path, data, shape)
    table = Table(str(path), columns, f"file:{path.name}", notes)
    if not len(table):
        raise InputError(f"{path} has no rows, at most a header. Add rows.")
    return table


def _reader(path: Path, name: str, data: bytes, shape: Shape) -> Reader:
    # Blobs in the hub's cache have no suffix.
    suffix = ".parquet" if data.startswith(b"PAR1") else PurePath(name).suffix.lower()
    reader = READERS.get(suffix, _read_csv if shape.separator else None)
    if reader is None:
        raise InputError(
            f"{path}: files that end in {suffix!r:.40} cannot be read. Use one of {', '.join(READERS)}, or name the "
            "`separator` of a delimited file."
        )
    for option in ("columns", "separator"):
        if getattr(shape, option) is not None and reader not in (_read_csv, _read_tsv):
            raise InputError(f"{path}: `{option}` is for delimited files such as CSV. Leave it out.")
    return reader


def _read_csv(path: Path, data: bytes, shape: Shape) -> Read:
    return read_delimited(path, decode(path, data, shape.encoding), ",", shape)


def _read_tsv(path: Path, data: bytes, shape: Shape) -> Read:
    return read_delimited(path, decode(path, data, shape.encoding), "\t", shape)


@dataclass(frozen=True)
class _Ambiguous:
    """Marks a JSON object with a repeated key; json.loads would silently keep the last value only."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Ambiguous:
    key, count = Counter(key for key, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    return _Ambiguous(key) if count > 1 else dict(pairs)


def _read_json(path: Path, data: bytes, shape: Shape) -> Read:
    text = decode(path, data, shape.encoding)
    if not text.lstrip().startswith("["):
        return _read_jsonl(path, data, shape)
    try:
        rows = parse_json(text, finite=False, object_pairs_hook=_object)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Write a list of objects, or one object per line.") from error
    return _gather(path, [(f"entry {number}", row) for number, row in enumerate(rows, 1)]), ()


def _read_jsonl(path: Path, data: bytes, shape: Shape) -> Read:
    rows = []
    # Not splitlines(): it also splits at U+2028 and others, which JSON allows inside strings.
    for number, line in enumerate(decode(path, data, shape.encoding).split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", parse_json(line, finite=False, object_pairs_hook=_object)))
            except ValueError as error:
                message = f"{path}: line {number} is not JSON ({error}). Write one object per line."
                raise InputError(message) from error
    return _gather(path, rows), ()


def _gather(path: Path, rows: list[tuple[str, Any]]) -> Columns:
    for place, row in rows:
        if isinstance(row, _Ambiguous):
            raise InputError(f"{path}: {place} has the key {row.key!r} twice. Rename one.")
        if not isinstance(row, dict):
            raise InputError(
                f'{path}: {place} is {row!r:.60}, not an object. Write objects like {{"text": ..., "label": ...}}.'
            )
    names = dict.fromkeys(name for _, row in rows for name in row)  # a key may be missing in some rows, even the first
    return {name: [row.get(name) for _, row in rows] for name in names}


def _read_parquet(path: Path, data: bytes, shape: Shape) -> Read:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        # Not pyarrow.parquet.read_table(), which adds a column for a folder name such as lang=en.
        with ParquetFile(pa.BufferReader(data)) as file:
            names, parts = file.schema_arrow.names, _batches(path, file, large=shape.large)
            columns = pa.Table.from_batches(parts, file.schema_arrow).to_pydict()
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        raise InputError(f"{path} is not a whole parquet file: {reason:.200}. Copy or write it again.") from error
    check_names(path, names)
    return dict(columns), ()


def _batches(path: Path, file: Any, *, large: bool) -> list[Any]:
    """Reads the rows up to the size limits. The file's own size is no bound: repeated values are encoded once."""
    rows, size, parts = file.metadata.num_rows, 0, []
    for batch in file.iter_batches(4096) if large or rows <= MOST_ROWS else ():
        parts.append(batch)
        size += batch.nbytes
        if not large and size > MOST_BYTES:
            break
    if not large and (rows > MOST_ROWS or size > MOST_BYTES):
        found = f"{rows:,} rows" if rows > MOST_ROWS else f"more than {MOST_BYTES // 2**20} MB once unpacked"
        raise InputError(f"{path} has {found}, more than is expected of texts to train on. {LARGE}")
    return parts


READERS: dict[str, Reader] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
}
