"""Reads rows of delimited text (CSV, TSV), choosing the reading that fits where several are possible."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.opening import Shape

SEPARATORS = (",", "\t", ";", "|")
_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_SPELLED = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|"}

Lines = list[tuple[int, list[str]]]  # line number and fields


@dataclass(frozen=True)
class _Reading:
    """Holds one way to read a file, its fault and its notes."""

    lines: Lines
    spans: tuple[tuple[int, int], ...] = ()  # first and last line of the records that span lines
    fault: str = ""
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.lines[0][1]) if self.lines else 0


def read_delimited(path: Path, text: str, usual: str, shape: Shape) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Reads columns by name, with notes on what was decided.

    The separator is the one given, else the one that a first line like ``sep=;`` names, else the usual one of the
    file's suffix, unless only another gives every line as many fields as the header.

    Raises:
        InputError: no header or rows, or a line has more or fewer fields than the header.
    """
    text, named = _cut_separator_line(text)
    given = _separator(shape.separator) or named
    if not text.strip():
        raise InputError(f"{path} holds only blank lines. Write a header and rows.")
    readings = {}
    for separator in [given] if given else [usual, *(one for one in SEPARATORS if one != usual and one in text)]:
        readings[separator] = _read(text, separator, shape.columns)
        if not readings[separator].fault and readings[separator].width > 1:
            break
    fit = [key for key, one in readings.items() if not one.fault and one.width > 1]
    split = [key for key, one in readings.items() if one.width > 1]
    separator = (fit or split or list(readings))[0]
    reading = readings[separator]
    if reading.fault:
        raise InputError(f"{path}: {reading.fault}")
    notes = reading.notes
    if separator not in (usual, given):
        notes = (f"its fields are separated by {_NAMES[separator]}, as found; set `separator` for another", *notes)
    columns, more = _columns(path, reading.lines)
    return columns, tuple(f"{path.name}: {note}." for note in (*notes, *more))


def _cut_separator_line(text: str) -> tuple[str, str]:
    """Cuts a first line like ``sep=;``, as spreadsheets write it; returns the text and the separator."""
    first = text[:12].split("\n", maxsplit=1)[0].strip('\r"')
    if first.lower().startswith("sep=") and len(first) == 5:
        return text.split("\n", maxsplit=1)[-1], first[4]
    return text, ""


def _separator(given: str | None) -> str:
    separator = _SPELLED.get(given or "", given or "")
    if len(separator) > 1 or separator in ('"', "\n", "\r", "\0"):
        raise InputError(f"separator is one character, such as ';' or tab, got {given!r:.60}.")
    return separator


def _read(text: str, separator: str, columns: Sequence[str] | None) -> _Reading:
    """Chooses the reading that fits: RFC 4180 quoting, backslashes, or quotation marks as part of the text.

    A quoted field that spans lines is believed only where the lines do not fit as they stand: a single mark at the
    start of a text would otherwise swallow all rows up to the next one.
    """

    def fitted(reading: _Reading) -> _Reading:
        return _fit(reading, columns)

    quoted = fitted(_with_spaced_quotes(_parse(text, separator), text, separator))
    sure = not quoted.fault and (quoted.width == 1 or _is_quoted(text, separator))
    if separator == "\t" and not sure:
        # GLUE's files have no quoting, and a sentence may be all in marks, which quoting would silently take away.
        plain = fitted(_parse(text, separator, quoting=csv.QUOTE_NONE))
        if not plain.fault and (quoted.fault or quoted.spans or '""' not in text):
            return _say_unbelieved(plain, quoted) if quoted.spans else plain
        quoted = plain if quoted.fault else quoted
    if not quoted.fault and (sure or not quoted.spans):
        return _say_spans(quoted)
    if quoted.fault and "\\" in text:
        escaped = fitted(_parse(text, separator, escapechar="\\", doublequote=False))
        if not escaped.fault:
            return replace(escaped, notes=(*escaped.notes, "backslashes are read as escapes"))
    single = fitted(_line_by_line(text, separator))
    if not single.fault and single.width > 1 and (quoted.fault or _alike(single, quoted)):
        return _say_unbelieved(single, quoted)
    return _say_spans(quoted)


def _with_spaced_quotes(reading: _Reading, text: str, separator: str) -> _Reading:
    """Reads quotation marks behind spaces as quoting too, where a field is written so: ``1, "good"``.

    A field that only begins with a space and a mark, and was quoted as a whole, is alike in both readings.
    """
    if not any(field.lstrip(" ").startswith('"') for _, fields in reading.lines for field in fields):
        return reading
    spaced = _parse(text, separator, skipinitialspace=True)
    stripped = [[field.lstrip(" ") for field in fields] for _, fields in reading.lines]
    if spaced.fault or [[field.lstrip(" ") for field in fields] for _, fields in spaced.lines] == stripped:
        return reading
    return replace(spaced, notes=("spaces before fields are left out, since some stand before quotation marks",))


def _parse(text: str, separator: str, *, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL, **options: Any) -> _Reading:
    # Without strict, a quote that is never closed would swallow all rows that follow it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True, **options)
    lines: Lines = []
    spans: list[tuple[int, int]] = []
    start, fault = 1, ""
    limit = csv.field_size_limit(len(text) + 1)  # the default refuses texts of more than 128 KiB
    try:
        for fields in reader:
            if fields:
                lines.append((start, fields))
            if reader.line_num > start:
                spans.append((start, reader.line_num))
            start = reader.line_num + 1
    except csv.Error as error:
        fault = f"line {start}: {error}. Check the quotes of that row."
    finally:
        csv.field_size_limit(limit)
    return _Reading(lines, tuple(spans), fault)


def _line_by_line(text: str, separator: str) -> _Reading:
    """Reads every line as a row: marks that close on their line quote, others are part of the text."""
    lines: Lines = []
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        bare = line.rstrip("\r\n")
        alone = _parse(bare, separator) if '"' in bare else None
        fields = alone.lines[0][1] if alone and not alone.fault and alone.lines else bare.split(separator)
        if bare:
            lines.append((number, fields))
    return _Reading(lines)


def _is_quoted(text: str, separator: str) -> bool:
    """Returns whether the header is written with quoting."""
    first = next(iter(io.StringIO(text.lstrip("\r\n"), newline=""))).rstrip("\r\n").split(separator)
    return all(len(field) > 1 and field[0] == field[-1] == '"' for field in first)


def _alike(single: _Reading, quoted: _Reading) -> bool:
    """Returns whether the lines that a quoted reading joins hold, one by one, nothing new in columns of few values."""
    inside = [f for n, f in single.lines if any(first <= n <= last for first, last in quoted.spans)]
    rows = [fields for _, fields in quoted.lines[1:]]
    for column in range(single.width):
        known = {fields[column] for fields in rows}
        if len(known) <= len(rows) / 2 and any(fields[column] not in known for fields in inside):
            return False
    return True


def _say_unbelieved(reading: _Reading, quoted: _Reading) -> _Reading:
    where = f"line {quoted.spans[0][0]}" if quoted.spans else "some lines"
    note = (
        f"quotation marks that do not close on their line are read as text ({where}), since the lines fit as they are"
    )
    return replace(reading, notes=(*reading.notes, note))


def _say_spans(reading: _Reading) -> _Reading:
    if not reading.spans or reading.fault:
        return reading
    first, last = max(reading.spans, key=lambda span: span[1] - span[0])
    note = f"{plural(len(reading.spans), 'row')} with lines inside quotation marks, the longest lines {first} to {last}"
    return replace(reading, notes=(*reading.notes, note))


def _fit(reading: _Reading, columns: Sequence[str] | None) -> _Reading:
    """Drops comments and nameless empty cells at the end of lines, or names the fault of the reading."""
    if reading.fault or not reading.lines:
        return reading
    lines, notes = _skip_comments(reading.lines)
    if columns is not None:
        if [name.strip() for name in lines[0][1]] == list(columns):
            return replace(reading, fault="line 1 is the header, so leave `columns` out.")
        lines = [(0, list(columns)), *lines]
    header = [name.strip() for name in lines[0][1]]
    width = max((i for i, name in enumerate(header, 1) if name), default=len(header))
    for number, fields in lines[1:]:
        over = any(field.strip() for field in fields[len(header) :]) or len(fields) < width
        if over:
            whose = "`columns` names" if columns is not None else "the header has"
            fault = f"line {number} has {len(fields)} fields, {whose} {width}. "
            return replace(reading, lines=lines, fault=fault + "Put fields that hold the separator in quotation marks.")
    lost = [(n, field) for n, fields in lines[1:] for field in fields[width:] if field.strip()]
    if lost:
        notes.append(
            f"{len(lost)} fields in columns without a name are not read (line {lost[0][0]}: {lost[0][1]!r:.40})"
        )
    cut = [(0, header[:width]), *((number, fields[:width]) for number, fields in lines[1:])]
    return replace(reading, lines=cut, notes=(*reading.notes, *notes))


def _skip_comments(lines: Lines) -> tuple[Lines, list[str]]:
    """Skips lines before the header that begin with ``#`` and do not have the fields of a row."""
    first = next((i for i, (_, fields) in enumerate(lines) if not fields[0].startswith("#")), 0)
    width, skipped = len(lines[first][1]), first
    while skipped and len(lines[skipped - 1][1]) == width:
        skipped -= 1
    return lines[skipped:], [f"{skipped} comment lines at its start are skipped"] if skipped else []


def _columns(path: Path, lines: Lines) -> tuple[dict[str, list[Any]], list[str]]:
    header = lines[0][1]
    named = [i for i, name in enumerate(header) if name]
    check_names(path, [header[i] for i in named])
    values = list(zip(*(fields for _, fields in lines[1:]), strict=True)) or [()] * len(header)
    full = [i + 1 for i in range(len(header)) if not header[i] and any(map(str.strip, values[i]))]
    notes = [f"column {', '.join(map(str, full))} has no name and is not read"] if full else []
    return {header[i]: list(values[i]) for i in named}, notes


def check_names(path: Path, names: Iterable[str]) -> None:
    """Refuses two columns of one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                f"{path} has the column {name!r:.60} twice. Rename one; if there is no header, name the `columns`."
            )
        seen.add(name)
