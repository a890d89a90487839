"""Writes neutral tables as files: CSV for programs, Markdown for people."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from trainflat.records.run import Record
from trainflat.report import sections
from trainflat.report.elements import Rows, Shown, Table
from trainflat.report.notes import notes, remarks
from trainflat.report.panels import Line, Panel, Point, make_panels
from trainflat.report.sections.base import Results, Row
from trainflat.report.sections.scores import PLAIN, differing_settings, has_zeros, summary_table
from trainflat.report.verdict import verdict
from trainflat.report.words import DASH, is_formula


def score_rows(records: Iterable[Record]) -> list[Row]:
    """Returns one row per task, model, protocol, optimizer and target sparsity, over seeds; columns as in the CSV.

    ``score_std`` is the sample standard deviation, None for one seed. Scores are in percent, shares in [0, 1], times in
    seconds, latencies in milliseconds. What was not measured is None.
    """
    rows = []
    for panel in make_panels(records):
        apart = differing_settings(panel)
        for line in panel.lines:
            rows += [_row(panel, line, point) | {"differs_in": apart[line.label]} for point in line.points]
    return rows


def to_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV with a header; None becomes an empty field, and no text is a formula to a spreadsheet."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([map(_inert, names), *([_inert(row.get(name)) for name in names] for row in rows)])
    return text.getvalue()


def to_markdown(results: Results, shown: Sequence[Shown]) -> str:
    """Returns the tables of every panel, then of entries without a panel, in Markdown."""
    shown = [section for section in shown if section.in_files]
    parts = [
        "# Results",
        *(f"> {_safe(note)}" for note in notes(results.panels)),
        *([PLAIN] if has_zeros(results.panels) else []),
    ]
    for panel in results.panels:
        parts += [f"## {_safe(panel.title)}", f"{_safe(panel.scored_on)}; mean ± standard deviation over seeds."]
        entries = [entry for section in shown for entry in section.entries if entry.panel is panel]
        parts += [part for entry in entries for table in entry.tables for part in _told(table)]
    for section in shown:
        tables = [table for entry in section.entries if entry.panel is None for table in entry.tables]
        if tables:
            parts += [f"## {section.title}", _markdown([row for table in tables for row in table.rows])]
    return "\n\n".join(parts) + "\n"


def to_summary(results: Results) -> str:
    """Returns what a pull request needs, in Markdown: verdicts, one table, what differs, and where the rest is."""
    parts = []
    for panel, found in ((panel, verdict(panel)) for panel in results.panels):
        told = [found.ship, *found.flat] if found else []
        head = f"**{_safe(panel.title)}** ({_safe(panel.scored_on)})"
        parts.append("\n".join([head, "", *(f"- {_safe(text)}" for text in told)]))
    records = [record for panel in results.panels for record in panel.records]
    if records:
        parts += [_markdown(summary_table(records)), *(f"> {_safe(note)}" for note in remarks(results.panels))]
    return "\n\n".join([*parts, "Figures, costs and recipes are in `report.html`, all tables in `results.md`."]) + "\n"


def _row(panel: Panel, line: Line, point: Point) -> Row:
    head = {
        "task": panel.task,
        "data": panel.data,
        "model": panel.model,
        "layers": panel.layers,
        "protocol": panel.protocol,
        "optimizer": line.label,
        "stage": point.stage,
        "target_sparsity": point.target,
        "split": panel.split,
        "metric": panel.metric,
        "partial_data": panel.partial,
    }
    return head | {key: value for each in sections.SECTIONS for key, value in each.columns(panel, point).items()}


def _told(table: Table) -> list[str]:
    return [*filter(None, [table.about, _markdown(table.rows), table.note])]


def _markdown(rows: Rows) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head, *body = (map(_safe, line) for line in [names, *([row.get(name, DASH) for name in names] for row in rows)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(names), *body])


def _inert(value: Any) -> Any:
    """Puts an apostrophe before a formula, which makes spreadsheets show it; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # csv puts only the latter in quotation marks
    return f"'{text}" if is_formula(text) else text


def _safe(text: str) -> str:
    """Escapes a name, so that it is no markup, new column, new line or formula where the table is pasted."""
    formula = is_formula(text)
    for mark, shown in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, shown)
    for mark in "|`[*":
        text = text.replace(mark, f"\\{mark}")
    return ("\\" if formula else "") + " ".join(text.split())
