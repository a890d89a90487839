"""A report shows what stands in SECTIONS: a section that a file adds is on the page, in figures and in tables."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.records import make_record
from trainflat.report import sections, write_report
from trainflat.report.elements import (
    Axis,
    Bars,
    Entry,
    Facts,
    Field,
    Figure,
    Heat,
    Line,
    Note,
    Plot,
    Points,
    Rule,
    Sentences,
    Shown,
    Source,
    Table,
)
from trainflat.report.page import render
from trainflat.report.static import draw, write_figures

OWN = '''
"""How many stages a line has."""

from trainflat.report.elements import Axis, Line, Plot, Table
from trainflat.report.sections.base import Section


class Stages(Section):
    title = "Stages of every line"
    key = "stages"

    def plots(self, panel, palette):
        lines = [
            Line([0, 1], [len(line.points)] * 2, line.label, f"series-{palette.slot(line.optimizer)}")
            for line in panel.lines
        ]
        return [Plot([lines], Axis("nothing"), Axis("stages", from_zero=True))]

    def caption(self, panel):
        return "Lines are as high as there are stages."

    def tables(self, panel):
        return [Table([{"Optimizer": line.label, "Stages": str(len(line.points))} for line in panel.lines], "Counted.")]

    def columns(self, panel, point):
        return {"stages_of_line": len(panel.lines[0].points)}
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    spec = importlib.util.spec_from_file_location("own", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, module.Stages()))


def test_a_section_is_one_file(own, tmp_path):
    page = write_report([make_record()], tmp_path / "out")
    text = page.read_text(encoding="utf8")
    assert "<h2>Stages of every line</h2>" in text and "Lines are as high as there are stages." in text
    assert re.search(r'<a href="#(section-\d+)">Stages of every line</a>.*<section id="\1">', text, re.DOTALL)
    assert re.search(r'<figure id="stages-0">.*class="legend"><li><svg.*</svg>adamw</li>', text, re.DOTALL)
    (picture,) = page.parent.glob("figures/stages-*.svg")
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert "Counted.\n\n| Optimizer | Stages |" in (page.parent / "results.md").read_text(encoding="utf8")
    assert "stages_of_line" in (page.parent / "results.csv").read_text(encoding="utf8").splitlines()[0]


def test_every_file_of_a_section_holds_one_that_is_shown():
    files = {path.stem for path in Path(sections.__path__[0]).glob("*.py")}
    assert {type(each).__module__.rpartition(".")[2] for each in sections.SECTIONS} == files - {"__init__", "base"}


MARKS = {
    "line": Line([0, 1, 2], [1, None, 3], "a", "series-0", symbol=1, spread=[0.1, None, None], hover="{x}"),
    "steps": Line([0, 1], [1, 3], "b", dash=3, stepped=True),
    "points": Points([0, 1], [1, 2], label="c", color="series-1", errors=[(0.1, 0.2), (0, 0)], ringed=True),
    "named": Points([0], [1], names=["model"], hover="here"),
    "bars": Bars(["x", "y"], [1, 2], [1.5, 2.5], "d", "series-2", "{x}: {y}"),
    "heat": Heat(["0", "1"], ["query"], [[1.0, None]], 0, 2, "Zeros (%)", " %"),
    "contours": Field([0, 1], [0, 1], [[1, 2], [3, None]], 1, 3, "Loss"),
    "surface": Field([0, 1], [0, 1], [[1, 2], [3, 4]], 1, 4, "loss", surface=True),
    "rule": Rule(0.5, "here"),
    "note": Note(0.5, 1, "there"),
}


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("log", [False, True])
def test_files_and_pages_draw_every_mark_on_every_axis(name, log, tmp_path):
    up = Axis("y", 0.5, 5, log=True) if log else Axis("y", from_zero=True, step=1)
    plot = Plot([[MARKS[name]]], Axis("x", ticks=[(0, "first"), (1, "last")]), up, "plot")
    figure = Figure("one", "one", "Title", [plot], "Caption.", ["under"])
    write_figures([figure], tmp_path, "svg")
    assert (tmp_path / "one.svg").stat().st_size > 3000
    page = render("t", "h", "lead", [Shown("Section", [Entry("Title", [figure])])])
    assert ('id="one-0"' in page) == (name != "surface") == ("figures/surfaces.html#one" not in page)
    assert "Caption." in page


def test_a_page_shows_every_kind_of_part():
    parts = [
        Table([{"Model": "<b>"}], "About."),
        Facts({"key": "value"}, "Facts"),
        Sentences(["Said."]),
        Source("a: 1"),
    ]
    page = render("t", "h", "lead", [Shown("Section", [Entry("Entry", parts)]), Shown("Empty", [])], warnings=["Mind."])
    for text in (
        "&lt;b&gt;",
        "About.",
        "<dt>key</dt>",
        "<h4>Facts</h4>",
        "<li>Said.</li>",
        "a: 1</pre>",
        "<li>Mind.</li>",
    ):
        assert text in page
    assert "<h2>Empty" not in page


def test_each_label_stands_once_in_the_legend():
    """Seeds of one line are lines of their own, under one name."""
    lines = [Line([0, 1], [seed, seed], label) for label in ("a", "b") for seed in (0, 1)]
    figure = Figure("one", "one", "Title", [Plot([lines])])
    page = render("t", "h", "lead", [Shown("Section", [Entry("Title", [figure])])])
    assert re.findall(r"</svg>(\w)</li>", page) == ["a", "b"]
    assert [text.get_text() for text in draw(figure).legends[0].get_texts()] == ["a", "b"]
