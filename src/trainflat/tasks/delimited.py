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
    """Holds one candidate parse of a file, with its fault, if it does not fit, and its notes."""

    lines: Lines
    spans: tuple[tuple[int, int], ...] = ()  # first and last line of each record that spans several lines
    fault: str = ""
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.lines[0][1]) if self.lines else 0


def read_delimited(path: Path, text: str, usual: str, shape: Shape) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Reads columns by name, with notes on what was detected.

    The separator is the one given, else the one that a first line like ``sep=;`` names, else ``usual``, unless only
    another one gives every line as many fields as the header.

    Args:
        usual: Separator that the suffix of the file stands for.

    Raises:
        InputError: there is no header or no row, or a line has more or fewer fields than the header.
    """
    text, named = _cut_separator_line(text)
    given = _separator(shape.separator) or named
    if not text.strip():
        raise InputError(f"{path} holds only blank lines. Write a header and rows.")
    separator, reading = _best_reading(text, given, usual, shape.columns)
    if reading.fault:
        raise InputError(f"{path}: {reading.fault}")
    notes = reading.notes
    if separator not in (usual, given):
        notes = (f"its fields are separated by {_NAMES[separator]}, as found; set `separator` for another", *notes)
    columns, more = _columns(path, reading.lines)
    return columns, tuple(f"{path.name}: {note}." for note in (*notes, *more))


def _best_reading(text: str, given: str, usual: str, columns: Sequence[str] | None) -> tuple[str, _Reading]:
    """Picks the first separator that fits; else the first that splits the header, for the clearest fault."""
    readings: dict[str, _Reading] = {}
    for separator in [given] if given else [usual, *(one for one in SEPARATORS if one != usual and one in text)]:
        readings[separator] = _read(text, separator, columns)
        # A single column fits any separator, and so proves none.
        if not readings[separator].fault and readings[separator].width > 1:
            return separator, readings[separator]
    split = [separator for separator, reading in readings.items() if reading.width > 1]
    separator = (split or list(readings))[0]
    return separator, readings[separator]


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
    """Picks the dialect that fits: RFC 4180 quoting, backslash escapes, or quotation marks as part of the text.

    A quoted field may span lines only if the lines do not fit one by one: a single mark at the start of a text would
    otherwise silently swallow all rows up to the next mark.
    """

    def fitted(reading: _Reading) -> _Reading:
        return _fit(reading, columns)

    quoted = fitted(_with_spaced_quotes(_parse(text, separator), text, separator))
    sure = not quoted.fault and (quoted.width == 1 or _is_quoted(text, separator))
    if separator == "\t" and not sure:
        # GLUE's TSV has no quoting, and quoting would silently strip the marks of a sentence that is all in marks.
        plain = fitted(_parse(text, separator, quoting=csv.QUOTE_NONE))
        if not plain.fault and (quoted.fault or quoted.spans or '""' not in text):
            return _note_literal_marks(plain, quoted) if quoted.spans else plain
        quoted = plain if quoted.fault else quoted
    if not quoted.fault and (sure or not quoted.spans):
        return _note_spans(quoted)
    if quoted.fault and "\\" in text:
        escaped = fitted(_parse(text, separator, escapechar="\\", doublequote=False))
        if not escaped.fault:
            return replace(escaped, notes=(*escaped.notes, "backslashes are read as escapes"))
    single = fitted(_line_by_line(text, separator))
    if not single.fault and single.width > 1 and (quoted.fault or _adds_no_category(single, quoted)):
        return _note_literal_marks(single, quoted)
    return _note_spans(quoted)


def _with_spaced_quotes(reading: _Reading, text: str, separator: str) -> _Reading:
    """Parses anew with spaces skipped after separators if quoted fields follow spaces: ``1, "good"``.

    Keeps the plain parse if both differ in leading spaces only: a text may begin with a space and a mark.
    """
    if not any(field.lstrip(" ").startswith('"') for _, fields in reading.lines for field in fields):
        return reading
    spaced = _parse(text, separator, skipinitialspace=True)
    stripped = [[field.lstrip(" ") for field in fields] for _, fields in reading.lines]
    if spaced.fault or [[field.lstrip(" ") for field in fields] for _, fields in spaced.lines] == stripped:
        return reading
    return replace(spaced, notes=("spaces before fields are left out, since some stand before quotation marks",))


def _parse(text: str, separator: str, *, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL, **options: Any) -> _Reading:
    # Not strict, csv would take a quote that is never closed to the end of the file, without an error.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True, **options)
    lines: Lines = []
    spans: list[tuple[int, int]] = []
    start, fault = 1, ""
    limit = csv.field_size_limit(len(text) + 1)  # a global of the module; the default refuses fields above 128 KiB
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
    """Parses every line as a row: marks that close on their line are quoting, others part of the text."""
    lines: Lines = []
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        bare = line.rstrip("\r\n")
        alone = _parse(bare, separator) if '"' in bare else None
        fields = alone.lines[0][1] if alone and not alone.fault and alone.lines else bare.split(separator)
        if bare:
            lines.append((number, fields))
    return _Reading(lines)


def _is_quoted(text: str, separator: str) -> bool:
    """Returns whether all names of the header are quoted, as writers with QUOTE_ALL leave them."""
    first = next(iter(io.StringIO(text.lstrip("\r\n"), newline=""))).rstrip("\r\n").split(separator)
    return all(len(field) > 1 and field[0] == field[-1] == '"' for field in first)


def _adds_no_category(single: _Reading, quoted: _Reading) -> bool:
    """Returns whether the lines that quoting joins, read one by one, have only known values in categorical columns.

    If they add a value to a column of few, such as the label, they are the inside of a text and not rows.
    """
    inside = [f for n, f in single.lines if any(first <= n <= last for first, last in quoted.spans)]
    rows = [fields for _, fields in quoted.lines[1:]]
    for column in range(single.width):
        known = {fields[column] for fields in rows}
        if len(known) <= len(rows) / 2 and any(fields[column] not in known for fields in inside):
            return False
    return True


def _note_literal_marks(reading: _Reading, quoted: _Reading) -> _Reading:
    where = f"line {quoted.spans[0][0]}" if quoted.spans else "some lines"
    note = (
        f"quotation marks that do not close on their line are read as text ({where}), since the lines fit as they are"
    )
    return replace(reading, notes=(*reading.notes, note))


def _note_spans(reading: _Reading) -> _Reading:
    if not reading.spans or reading.fault:
        return reading
    first, last = max(reading.spans, key=lambda span: span[1] - span[0])
    note = f"{plural(len(reading.spans), 'row')} with lines inside quotation marks, the longest lines {first} to {last}"
    return replace(reading, notes=(*reading.notes, note))


def _fit(reading: _Reading, columns: Sequence[str] | None) -> _Reading:
    """Checks the number of fields; drops comments before the header and empty trailing cells without a name.

    Spreadsheets write such cells where something was once typed and deleted.
    """
    if reading.fault or not reading.lines:
        return reading
    lines, notes = _skip_comments(reading.lines)
    if columns is not None:
        if [name.strip() for name in lines[0][1]] == list(columns):
            return replace(reading, fault="line 1 is the header, so leave `columns` out.")
        lines = [(0, list(columns)), *lines]
    header = [name.strip() for name in lines[0][1]]
    width = max((i for i, name in enumerate(header, 1) if name), default=len(header))
    fault = _width_fault(lines, width, named=columns is not None)
    if fault:
        return replace(reading, lines=lines, fault=fault)
    lost = [(n, field) for n, fields in lines[1:] for field in fields[width:] if field.strip()]
    if lost:
        notes.append(
            f"{len(lost)} fields in columns without a name are not read (line {lost[0][0]}: {lost[0][1]!r:.40})"
        )
    cut = [(0, header[:width]), *((number, fields[:width]) for number, fields in lines[1:])]
    return replace(reading, lines=cut, notes=(*reading.notes, *notes))


def _width_fault(lines: Lines, width: int, *, named: bool) -> str:
    """Describes the first line with fewer fields than ``width``, or with text in more than the header has; else ''."""
    most = len(lines[0][1])
    for number, fields in lines[1:]:
        if len(fields) >= width and not any(field.strip() for field in fields[most:]):
            continue
        fault = f"line {number} has {len(fields)} fields, {'`columns` names' if named else 'the header has'} {width}. "
        quote = "put fields that hold the separator in quotation marks."
        # R's write.table gives rows a name and the header none for these.
        if not named and all(len(fields) == most + 1 for _, fields in lines[1:]):
            rows = "If each line begins with the name of its row, as R writes them, write the file without these"
            return f"{fault}{rows} (`row.names = FALSE`). Otherwise {quote}"
        return fault + quote.capitalize()
    return ""


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
    """Checks that no two columns have one name, since the later would replace the earlier.

    Raises:
        InputError: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                f"{path} has the column {name!r:.60} twice. Rename one; if there is no header, name the `columns`."
            )
        seen.add(name)
