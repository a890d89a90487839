"""Writes a report: one page, and the same as files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import together, write_text
from trainflat.records.landscape import Landscape
from trainflat.records.run import Record
from trainflat.report.marks import is_ours, mark, refuse_foreign
from trainflat.report.notes import notes
from trainflat.report.panels import make_panels
from trainflat.report.tables import score_rows, to_csv, to_markdown

FORMATS = ("html", "png", "svg", "csv", "md")
PAGE, CSV, MARKDOWN, FIGURES = "report.html", "results.csv", "results.md", "figures"
Writer = Callable[[Sequence[Record], Sequence[Landscape], Path], None]


def write_report(
    records: Sequence[Record], out: Path, formats: Sequence[str] = FORMATS, landscapes: Sequence[Landscape] = ()
) -> Path:
    """Writes a report on any mixture of runs.

    Args:
        records: What runs left; see :func:`~trainflat.report.read_records`.
        out: A folder. Gets ``report.html``, ``results.csv``, ``results.md`` and ``figures/*.png`` and ``*.svg``, each
            when all are made. Figures there that an earlier report wrote and this one does not are deleted.
        formats: Which of them.
        landscapes: Loss planes, lines and spectra to show beside the runs; the CSV has no place for them.

    Returns:
        The page; the folder, if no page was asked for.

    Raises:
        InputError: neither record nor landscape is given, a format is unknown, or the folder cannot be written.
    """
    writers = _writers()
    for name in formats:
        if name not in writers:
            raise UnknownName("report format", name, writers)
    if out.exists() and not out.is_dir():
        raise InputError(f"a report needs a folder, but {out} is a file. Choose another --out.")
    if not records and not landscapes:
        raise InputError(
            "a report needs at least one record or landscape, got none. Name the folder of a finished run."
        )
    with together(out) as place:
        for name in formats:
            writers[name](records, landscapes, place)
        written = {path.name for path in (place / FIGURES).glob("*")}
        refuse_foreign(place, out)
    for path in (out / FIGURES).glob("*"):  # an earlier report may have been on other runs
        if path.suffix[1:] in formats and path.name not in written and is_ours(path):
            path.unlink(missing_ok=True)
    return out / PAGE if "html" in formats else out


def _writers() -> dict[str, Writer]:
    def html(records: Sequence[Record], landscapes: Sequence[Landscape], out: Path) -> None:
        from trainflat.report.page import render

        write_text(out / PAGE, render(records, landscapes))

    def figures(kind: str) -> Writer:
        def write(records: Sequence[Record], landscapes: Sequence[Landscape], out: Path) -> None:
            from trainflat.report.landscape_static import write_landscapes
            from trainflat.report.static import write_figures  # matplotlib takes half a second to import

            write_figures(make_panels(records), out / FIGURES, kind)
            write_landscapes(landscapes, out / FIGURES, kind)

        return write

    def table(records: Sequence[Record], landscapes: Sequence[Landscape], out: Path) -> None:
        if records:  # landscapes have no rows
            write_text(out / CSV, to_csv(score_rows(records)))

    def markdown(records: Sequence[Record], landscapes: Sequence[Landscape], out: Path) -> None:
        panels = make_panels(records)
        text = to_markdown(panels, notes(panels), landscapes)
        write_text(out / MARKDOWN, f"<!-- {mark(out / MARKDOWN)} -->\n\n{text}")

    return {"html": html, "png": figures("png"), "svg": figures("svg"), "csv": table, "md": markdown}
