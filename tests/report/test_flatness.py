"""Flatness in a report, the paper's figures beside it where model, task, box, protocol and sparsity are its own."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import WIDTHS, Visit, figures_of
from tests.support.records import make_record
from trainflat.records.run import Record
from trainflat.report import write_report
from trainflat.report.elements import Line
from trainflat.report.palette import DASHES
from trainflat.report.panels import make_panels
from trainflat.report.sections.curve import ScoreCurve
from trainflat.report.sections.flatness import flatness_table
from trainflat.report.sections.training import TrainingCurves
from trainflat.report.static import draw, styled
from trainflat.report.tables import score_rows, to_csv

SAM = {"name": "sam", "base": "adamw", "lr": 2e-5}


def measured(values: dict[float, dict[str, float]], **options: Any) -> Record:
    """A run of which some stages were measured."""
    record = make_record(**options)
    stages = [stage.model_copy(update={"flatness": values.get(stage.target_sparsity, {})}) for stage in record.stages]
    return record.model_copy(update={"stages": stages}).sealed()


def table(*records: Record) -> list[list[str]]:
    (panel,) = make_panels(records)
    return [list(row.values()) for row in flatness_table(panel)]


def test_our_sharpness_stands_above_the_papers():
    found = {0.0: {"keskar_0.001": 12.0, "trace": 3.0}, 0.5: {"keskar_0.001": 20.0}, 0.9: {"keskar_0.001": 31.5}}
    other = {target: {name: value + 2 for name, value in row.items()} for target, row in found.items()}
    assert table(measured(found), measured(other, seed=1), measured({0.0: {"trace": 1.0}}, optimizer=SAM)) == [
        ["adamw", "2", "0 %", "13 ± 1.4", "4 ± 1.4"],
        ["adamw", "2", "50 %", "21 ± 1.4", "–"],
        ["adamw", "2", "90 %", "32.5 ± 1.4", "–"],
        ["sam", "1", "0 %", "–", "1"],
        ["Na et al. 2022, Adam", "published", "0 %", "11.8 ± 3.1", "–"],
        ["Na et al. 2022, SAM", "published", "0 %", "4.5 ± 0.4", "–"],
        ["Na et al. 2022, Adam", "published", "50 %", "20.2 ± 6.1", "–"],
        ["Na et al. 2022, SAM", "published", "50 %", "13.8 ± 1.2", "–"],
        ["Na et al. 2022, SWA", "published", "50 %", "5.4 ± 1.1", "–"],
    ]


DENSE, PRUNED = {0.0: {"keskar_0.005": 1.0}}, {0.5: {"keskar_0.005": 1.0}}


@pytest.mark.parametrize(
    ("values", "options", "published"),
    [
        (DENSE, {}, {"0 %"}),
        (PRUNED, {}, {"50 %"}),
        (DENSE | PRUNED, {"protocol": {"name": "one-shot"}}, {"0 %"}),
        (PRUNED, {"protocol": {"name": "iterative", "rewind": "none"}}, set()),
        ({0.7: {"keskar_0.005": 1.0}}, {}, set()),
        ({0.5: {"keskar_full_0.005": 1.0}}, {}, set()),
        ({0.5: {"keskar_0.002": 1.0}}, {}, set()),
        (PRUNED, {"model": "minilm", "layers": 6}, set()),
        (PRUNED, {"layers": 6}, set()),
        (PRUNED, {"partial": True}, set()),
        (PRUNED, {"task": "stdlib-docs"}, set()),
        (PRUNED, {"task": "squad"}, set()),  # of which the paper has none
    ],
    ids=str,
)
def test_the_papers_figures_stand_where_they_compare(values, options, published):
    rows = table(measured(values, **options))
    assert {row[2] for row in rows if row[1] == "published"} == published
    assert len([row for row in rows if row[1] == "1"]) == len(values)


def test_files_tell_flatness_too(tmp_path: Path):
    records = [measured(DENSE | PRUNED), measured(DENSE, seed=1)]
    rows = list(csv.DictReader(io.StringIO(to_csv(score_rows(records)))))
    assert {row["target_sparsity"]: row["flatness_keskar_0.005"] for row in rows if row["flatness_keskar_0.005"]} == {
        "0.0": "1.0",
        "0.5": "1.0",
    }
    assert [row["flatness_keskar_0.005_std"] for row in rows][:2] == ["0.0", ""]
    write_report(records, tmp_path, ["md", "svg"])
    text = (tmp_path / "results.md").read_text(encoding="utf8")
    assert "| Na et al. 2022, SWA | published | 50 % | 81.3 ± 22.3 |" in text
    assert "Lower is flatter" in text
    (picture,) = (tmp_path / "figures").glob("flatness-*.svg")
    assert picture.stat().st_size > 5000


def test_without_measures_there_is_no_such_section(tmp_path: Path):
    write_report([make_record()], tmp_path, ["html", "md", "svg"])
    assert "Flatness" not in (tmp_path / "results.md").read_text(encoding="utf8")
    assert "<h2>Flatness</h2>" not in (tmp_path / "report.html").read_text(encoding="utf8")
    assert not list((tmp_path / "figures").glob("flatness-*"))


def many(count: int) -> list[Record]:
    options = [SAM | {"rho": round(0.005 * (k + 1), 3)} for k in range(count)]
    return [make_record(optimizer=each, sparsities=(0.0, 0.5)) for each in options]


def test_thirty_variants_are_drawn_whole_and_look_apart(tmp_path: Path):
    figures = [figure for section in (ScoreCurve(), TrainingCurves()) for figure in figures_of(section, many(30))]
    with styled():
        for figure in figures:
            canvas = draw(figure)
            canvas.savefig(tmp_path / f"{figure.file}.svg")  # no layout would warn, which is an error here
            axes = canvas.axes[0].get_window_extent()
            assert axes.height > 200
            assert canvas.legends[0].get_window_extent().y1 < axes.y0
    lines = [mark for mark in figures[0].plots[0].frames[0] if isinstance(mark, Line) and mark.symbol is not None]
    assert len({(line.dash % DASHES, line.symbol) for line in lines}) == 30


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_has_room_for_every_name_and_the_plot(browser: Any, tmp_path: Path, width: str):
    records = [*many(25), measured(DENSE | PRUNED)]
    visit = Visit(browser, write_report(records, tmp_path, ["html"]), WIDTHS[width])
    assert visit.complaints == []
    for plot in ("#score-0-0 svg:visible", "#curves-0-0 svg:visible"):
        assert visit.page.query_selector(plot).bounding_box()["height"] > 200
    assert len(visit.page.query_selector_all("#score-0 .legend li")) == 29
    assert "published" in visit.page.text_content("#flatness-0 table")
    assert visit.too_wide() == []
    visit.page.close()
