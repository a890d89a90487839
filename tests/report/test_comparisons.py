"""The differences of a panel's lines: which are taken, how they are drawn and told, and several at once."""

import csv
import io

import pytest

from tests.support.paired import SAM, runs, with_rows
from tests.support.records import make_record
from trainflat.report import write_report
from trainflat.report.elements import Points, Rule, Sentences
from trainflat.report.paired import paired_points
from trainflat.report.palette import Palette
from trainflat.report.panels import make_panels
from trainflat.report.sections.base import Results
from trainflat.report.sections.comparisons import Comparisons, compared
from trainflat.report.tables import score_rows, to_csv

FEW = (0.0, 0.5)


def test_every_sparsity_is_compared_in_figure_table_and_csv():
    records = runs([0, 1, 2], gain=2.0, sparsities=FEW)
    (panel,) = make_panels(records)
    adamw, sam = panel.lines
    wanted = [paired_points(one, other) for one, other in zip(sam.points, adamw.points, strict=True)]
    found = compared(panel)
    assert [each.found for each in found] == wanted and {each.lines for each in found} == {"sam − adamw"}
    (plot,) = Comparisons().plots(panel, Palette(["adamw", "sam"]))
    rule, dots = plot.frames[0]
    assert isinstance(rule, Rule) and rule.at == 0 and isinstance(dots, Points)
    assert (dots.x, dots.y) == ([one.value for one in wanted if one], [0.0, 50.0])
    (table,) = Comparisons().tables(panel)
    assert [row["Sparsity"] for row in table.rows] == ["0 %", "50 %"]
    assert {row["Over"] for row in table.rows} == {"3 seeds and 1,500 rows"}
    back = list(csv.DictReader(io.StringIO(to_csv(score_rows(records)))))
    assert [row["difference_to"] for row in back] == ["", "", "adamw", "adamw"]
    assert [float(row["difference_low"]) for row in back[2:]] == [one.low for one in wanted if one]


def test_few_lines_are_compared_with_each_other_and_many_with_the_first():
    names = ("asam", "adamw", "sam", "msam", "gsam")
    many = [with_rows(make_record(optimizer={"name": name, "lr": 2e-5}, sparsities=FEW)) for name in names]
    (panel,) = make_panels(many)
    assert [each.lines for each in compared(panel)[::2]] == [f"{name} − adamw" for name in sorted({*names} - {"adamw"})]
    (panel,) = make_panels(many[:3])
    assert [each.lines for each in compared(panel)[::2]] == ["asam − adamw", "sam − adamw", "sam − asam"]
    (panel,) = make_panels(many[:1])
    assert compared(panel) == [] and Comparisons().show(Results.of(many[:1])).entries == []


def test_several_at_once_are_said_to_be_several():
    (panel,) = make_panels(runs([0, 1, 2, 3], gain=1.4, sparsities=(0.0, 0.1, 0.3, 0.5)))
    found = compared(panel)
    alone, left = sum(each.found.p < 0.05 for each in found), sum(each.adjusted <= 0.05 for each in found)
    assert alone > left
    (table,) = Comparisons().tables(panel)
    assert f"Of 4 comparisons, {alone} exclude zero, where chance alone would make up to 0.2" in table.note
    assert f"after Holm's correction for all of them, {left} do." in table.note
    told = [row["Apart"] for row in table.rows]
    assert sum("not among so many" in text for text in told) == alone - left


def test_sentences_say_in_what_else_two_lines_differ(tmp_path):
    records = runs([0], sparsities=FEW)
    records += [with_rows(make_record(optimizer=SAM | {"lr": 1e-4, "rho": 0.1}, sparsities=FEW))]
    shown = Comparisons().show(Results.of(records))
    (said,) = [part for part in shown.entries[1].parts if isinstance(part, Sentences)]
    assert len(said.texts) == 6 + 2  # three pairs at two sparsities; two of them differ in the learning rate
    (first,) = [text for text in said.texts if text.startswith("sam (rho 0.05) − adamw at 50 %: ")]
    assert first.endswith("over 1,500 rows of one seed (another seed may differ by more): not told apart.")
    more = [text for text in said.texts if "lines differ in training.optimizer.lr" in text]
    assert len(more) == 2 and more[0].startswith("sam (rho 0.1) − adamw: beside optimizer")
    page = write_report(records, tmp_path, ["html", "md"]).read_text(encoding="utf8")
    assert first in page and "What can be told apart" in page
    assert "| Lines | Sparsity | Difference |" in (tmp_path / "results.md").read_text(encoding="utf8")


@pytest.mark.parametrize("sparsities", [(0.0, 0.5, 0.7), (0.0, 0.7)])
def test_only_what_both_lines_reached_is_compared(sparsities):
    one = with_rows(make_record(sparsities=(0.0, 0.5)))
    other = with_rows(make_record(optimizer=SAM, sparsities=sparsities))
    panels = make_panels([one, other])
    assert [each.point.target for each in compared(panels[0])] == [s for s in sparsities if s in (0.0, 0.5)]
