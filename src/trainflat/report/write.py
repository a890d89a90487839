"""Writes a report: one page, and the same as files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import together, write_text
from trainflat.records.landscape import Landscape
from trainflat.records.run import Record
from trainflat.report import sections
from trainflat.report.elements import Shown
from trainflat.report.marks import is_ours, mark, refuse_foreign
from trainflat.report.sections.base import Results
from trainflat.report.surfaces import PAGE as SURFACES
from trainflat.report.surfaces import with_surfaces
from trainflat.report.tables import score_rows, to_csv, to_markdown, to_summary

FORMATS = ("html", "png", "svg", "csv", "md")
PAGE, CSV, MARKDOWN, SUMMARY, FIGURES = "report.html", "results.csv", "results.md", "summary.md", "figures"


def write_report(
    records: Sequence[Record], out: Path, formats: Sequence[str] = FORMATS, landscapes: Sequence[Landscape] = ()
) -> Path:
    """Writes a report on any mixture of runs.

    Args:
        records: What runs left; see :func:`~trainflat.report.read_records`.
        out: A folder. Gets ``report.html``, ``results.csv``, ``results.md``, ``summary.md`` (for a pull request) and
            ``figures/*.png`` and ``*.svg``, with surfaces to turn ``figures/surfaces.html``, each when all are made.
            Figures there that an earlier report wrote and this one does not are deleted.
        formats: Which of them.
        landscapes: Loss planes, lines and spectra to show beside the runs; the CSV has no place for them.

    Returns:
        The page; the folder, if no page was asked for.

    Raises:
        InputError: neither record nor landscape is given, a format is unknown, the folder cannot be written, or a file
            in it that is to be replaced is somebody else's.
    """
    for name in formats:
        if name not in _WRITERS:
            raise UnknownName("report format", name, _WRITERS)
    if out.exists() and not out.is_dir():
        raise InputError(f"a report needs a folder, but {out} is a file. Choose another --out.")
    if not records and not landscapes:
        raise InputError(
            "a report needs at least one record or landscape, got none. Name the folder of a finished run."
        )
    results = Results.of(records, landscapes)
    shown = sections.show(results)
    with together(out) as place:
        for name in formats:
            _WRITERS[name](results, shown, place)
        written = {path.name for path in (place / FIGURES).glob("*")}
        refuse_foreign(place, out)
    for path in (out / FIGURES).glob("*"):  # an earlier report may have been on other runs
        if path.suffix[1:] in formats and path.name not in written and is_ours(path):
            path.unlink(missing_ok=True)
    return out / PAGE if "html" in formats else out


def _write_page(results: Results, shown: Sequence[Shown], out: Path) -> None:
    from trainflat.report.page import render_report, render_surfaces

    write_text(out / PAGE, render_report(results, shown))
    if figures := with_surfaces(shown):
        path = out / FIGURES / SURFACES
        write_text(path, render_surfaces(figures, mark(path)))


def _write_figures(kind: str) -> Callable[[Results, Sequence[Shown], Path], None]:
    def write(results: Results, shown: Sequence[Shown], out: Path) -> None:
        from trainflat.report.static import write_figures  # matplotlib takes half a second to import

        figures = [figure for section in shown for entry in section.entries for figure in entry.figures]
        write_figures(figures, out / FIGURES, kind)

    return write


def _write_csv(results: Results, shown: Sequence[Shown], out: Path) -> None:
    records = [record for panel in results.panels for record in panel.records]
    if records:  # landscapes have no rows
        write_text(out / CSV, to_csv(score_rows(records)))


def _write_markdown(results: Results, shown: Sequence[Shown], out: Path) -> None:
    for name, text in ((MARKDOWN, to_markdown(results, shown)), (SUMMARY, to_summary(results))):
        write_text(out / name, f"<!-- {mark(out / name)} -->\n\n{text}")


_WRITERS: dict[str, Callable[[Results, Sequence[Shown], Path], None]] = {
    "html": _write_page,
    "png": _write_figures("png"),
    "svg": _write_figures("svg"),
    "csv": _write_csv,
    "md": _write_markdown,
}
