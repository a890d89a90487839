"""Reading runs from disk, and writing every format: whole, safe with hostile names, and the same each time."""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from tests.support.landscapes import make_landscapes, make_line
from tests.support.pages import HOSTILE
from tests.support.records import SPARSITIES, comparison, diagnosis, make_record, make_records
from trainflat.cli import main as cli
from trainflat.core.errors import DamagedFile, InputError, UnknownName
from trainflat.report import FORMATS, find_records, find_results, read_records, write_diagnosis, write_report
from trainflat.report.comparison import write_comparison
from trainflat.report.panels import at, make_panels
from trainflat.report.sections.base import focus
from trainflat.report.sections.training import curves
from trainflat.report.sections.zeros import shares_seen, zero_grid


@pytest.fixture
def blank(monkeypatch):
    """Draws figures without a mark in them, since a real one takes a second: where files count, not what they show."""
    monkeypatch.setattr("trainflat.report.static.draw", lambda figure: Canvas(figsize=(1, 1)))


ODD = {
    "one stage": [make_record(sparsities=(0.0,))],
    "dense protocol": [make_record(protocol={"name": "dense"}, sparsities=(0.0,))],
    "one-shot, no training": [make_record(protocol={"name": "one-shot"})],
    "ticket": [make_record(protocol={"name": "ticket", "sparsity": 0.5}, sparsities=(0.5,))],
    "other stages per seed": [make_record(seed=0), make_record(seed=1, sparsities=SPARSITIES[:2])],
    "no latency": [make_record(latency=False)],
    "partial data": [make_record(partial=True)],
    "a mixture": [make_record(), make_record("cola", "minilm", 6), make_record("rte", partial=True)],
    "hostile names": [make_record(HOSTILE, HOSTILE, optimizer={"name": HOSTILE}, name=HOSTILE)],
    "nine optimizers": [make_record(optimizer={"name": f"o{k}"}) for k in range(9)],
}


def bare(record):
    """The same run with nothing measured but scores."""
    stages = [stage.model_copy(update={"matrices": [], "training": None}) for stage in record.stages]
    return record.model_copy(update={"stages": stages, "data": {}, "environment": {}}).sealed()


@pytest.mark.parametrize("records", [*ODD.values(), [bare(make_record())]], ids=[*ODD, "nothing but scores"])
def test_every_mixture_gives_a_page_and_tables(records, tmp_path):
    page = write_report(records, tmp_path / "report", ["html", "csv", "md"])
    assert page == tmp_path / "report" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "results.csv", "results.md", "summary.md"]


@pytest.mark.parametrize("case", ["a mixture", "hostile names"])
def test_figures_are_whole_files(case, tmp_path):
    assert write_report(ODD[case], tmp_path, ["png", "svg"]) == tmp_path
    pictures = sorted((tmp_path / "figures").iterdir())
    panels = len(make_panels(ODD[case]))
    assert [p.suffix for p in pictures].count(".png") == [p.suffix for p in pictures].count(".svg") == 4 * panels
    for path in pictures:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as image:
                image.verify()


@pytest.mark.usefixtures("blank")
def test_panels_whose_names_look_alike_get_files_of_their_own(tmp_path):
    records = [make_record("a b"), make_record("a-b"), make_record("a/b")]
    write_report(records, tmp_path, ["svg"])
    assert len(list((tmp_path / "figures").glob("score-*.svg"))) == 3


@pytest.mark.long
def test_same_records_same_bytes(tmp_path):
    records = [make_record(seed=1), make_record(optimizer={"name": "sam", "rho": 0.05})]
    for name, given in ("one", records), ("other", records[::-1]):
        write_report(given, tmp_path / name)
    written = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(written) == 4 + 2 * 4
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


def test_hostile_names_are_text_on_the_page(tmp_path):
    page = write_report(ODD["hostile names"], tmp_path, ["html"]).read_text(encoding="utf8")
    own = page[: page.index("<script>\n")]
    assert "<script" not in own
    assert "&lt;script&gt;alert(&#34;x&#34;)" in own
    assert "829921" not in own  # braces are not a template


def test_thirty_records_are_a_light_page_in_seconds(tmp_path):
    settings = [("stsb", "adamw"), ("stsb", "sam"), ("cola", "adamw"), ("cola", "sam"), ("rte", "sam")]
    records = [make_record(task, optimizer={"name": name}, seed=k) for task, name in settings for k in range(6)]
    started = time.process_time()
    page = write_report(records, tmp_path, ["html"])
    assert time.process_time() - started < 5
    assert page.stat().st_size < 300_000


def test_unknown_formats_no_records_and_a_file_in_the_way(tmp_path):
    with pytest.raises(UnknownName, match=r"no report format is called 'pgn'. Did you mean 'png'"):
        write_report([make_record()], tmp_path / "r", ["pgn"])
    with pytest.raises(InputError, match="at least one record"):
        write_report([], tmp_path / "r")
    assert not (tmp_path / "r").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_report([make_record()], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failing_writer_leaves_the_report_before_it(tmp_path, monkeypatch):
    page = write_report([make_record()], tmp_path, ["html"])
    before = page.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainflat.core.files.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_report(make_records(), tmp_path, ["html"])
    assert page.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_every_format_has_a_writer(tmp_path):
    write_report([make_record()], tmp_path, FORMATS)
    assert {p.suffix[1:] for p in tmp_path.rglob("*") if p.is_file()} == set(FORMATS)


def test_reports_need_no_torch(tmp_path):
    make_record().save(tmp_path)
    program = f"""
import sys
from pathlib import Path
from trainflat.report import read_records, write_report
write_report(read_records([Path({str(tmp_path)!r})]), Path({str(tmp_path / "out")!r}), ["html", "csv", "md", "svg"])
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_runs_are_found_at_any_depth_and_once(tmp_path):
    records = [make_record(seed=seed) for seed in range(3)]
    for place, record in zip(["a", "deep/er/b", "c"], records, strict=True):
        record.save(tmp_path / place)
    records[0].save(tmp_path / "copy")
    assert read_records([tmp_path]) == records
    assert read_records([tmp_path / "c", tmp_path / "a" / "record.json", tmp_path / "copy"]) == [records[0], records[2]]


def test_unfinished_runs_are_named_and_other_recipes_are_not(tmp_path):
    make_record().save(tmp_path / "runs" / "done")
    for folder in "runs", "runs/done", "runs/started":
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "recipe.yaml").write_text("task: stsb")
    assert find_records([tmp_path]).unfinished == [tmp_path / "runs" / "started"]


def test_nothing_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"there is no record.json at or below .*Name the folder"):
        read_records([tmp_path])
    with pytest.raises(InputError, match="there is nothing at"):
        read_records([tmp_path / "typo"])
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "recipe.yaml").write_text("task: stsb")
    with pytest.raises(InputError, match=r"no run at .* is finished"):
        read_records([tmp_path])


def test_a_record_that_was_edited_is_refused(tmp_path):
    make_record().save(tmp_path)
    path = tmp_path / "record.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(DamagedFile, match="changed after it was written"):
        read_records([tmp_path])


def test_zeros_per_matrix_are_means_over_seeds_in_their_place():
    panel = make_panels([make_record(seed=seed) for seed in range(2)])[0]
    point = at(panel.lines[0], 0.5)
    grid = zero_grid(point)
    assert grid.kinds == ["query", "key", "value", "attention out", "feed-forward in", "feed-forward out", "pooler"]
    assert grid.layers == [str(layer) for layer in range(12)]
    named = {matrix.name: matrix for matrix in point.runs[0][1].matrices}
    matrix = named["bert.encoder.layer.3.attention.self.key.weight"]
    assert grid.shares[1][3] == pytest.approx(100 * matrix.zeros / matrix.entries)
    assert grid.shares[-1] == [None] * 11 + [pytest.approx(20.0, abs=0.01)]
    low, high = shares_seen([grid])
    assert low > 40  # the pooler's 20 % does not stretch the scale
    assert high < 60


def test_the_sparsity_shown_first_is_the_reference_or_the_highest():
    assert focus(make_panels([make_record("rte")])[0]) == 0.5  # of 0.5 and 0.7, as near to 0.6, the denser one
    assert focus(make_panels([make_record("rte", "minilm")])[0]) == 0.9


def test_long_curves_are_thinned_and_keep_both_ends():
    record = make_record(sparsities=(0.0,))
    entries = [{"step": float(step), "loss": 1 / step} for step in range(1, 5001)]
    training = record.stages[0].training.model_copy(update={"curve": entries})
    stage = record.stages[0].model_copy(update={"training": training})
    point = make_panels([record.model_copy(update={"stages": [stage]})])[0].lines[0].points[0]
    (curve,) = curves(point, "loss")
    assert (curve.steps[0], curve.steps[-1]) == (1, 5000)
    assert len(curve.steps) <= 402
    assert curves(point, "loss_gap") == []


@pytest.mark.usefixtures("blank")
def test_a_second_report_keeps_no_figure_of_the_first_and_every_file_of_others(tmp_path):
    write_report([make_record("cola"), make_record("stsb")], tmp_path)
    own = tmp_path / "figures" / "score-mine.png"
    (tmp_path / "figures" / "score-cola-copy.svg").write_bytes(next(tmp_path.rglob("score-cola*.svg")).read_bytes())
    own.write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    write_report([make_record("stsb")], tmp_path)
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"score-mine.png", "score-cola-copy.svg", "notes.txt", "report.html", "results.csv"} <= kept
    assert [name for name in kept if "cola" in name] == ["score-cola-copy.svg"]
    write_report([make_record("rte")], tmp_path, ["html", "svg"])  # what is not asked for stays
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {name[-3:] for name in kept if "stsb" in name} == {"png"}


class Failing:
    """Stands for ``Path.chmod``, which ends the writing of every file; the disk is full at one of them."""

    def __init__(self, at):
        self.at, self.chmod = at, Path.chmod

    def __get__(self, path, kind):
        def chmod(mode):
            self.at -= 1
            if self.at < 0:
                raise OSError(28, "No space left on device")
            self.chmod(path, mode)

        return chmod


WRITERS = {
    "report": lambda out: write_report([make_record("rte")], out),
    "diagnosis": lambda out: write_diagnosis([diagnosis()], out),
    "bench": lambda out: write_comparison(comparison([(1.0, None, 9)]), out),
}


def files_of(folder):
    """Inode and content of each file: one that takes its place anew is another."""
    return {path: (path.stat().st_ino, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("blank")
def test_a_file_of_somebody_else_stays(name, tmp_path):
    write = WRITERS[name]
    write(tmp_path)
    write(tmp_path)  # what it wrote itself it replaces
    for path in [path for path in tmp_path.iterdir() if path.is_file()]:
        before = path.read_bytes()
        path.write_text("date,result\n1,2\n")
        with pytest.raises(InputError, match=rf"{path.name} is there already, and no report of trainflat. It stays"):
            write(tmp_path)
        assert path.read_text() == "date,result\n1,2\n"
        path.write_bytes(before)


@pytest.mark.long
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("blank")
def test_a_writer_that_is_stopped_anywhere_leaves_the_old_or_the_new(name, step, tmp_path, monkeypatch):
    """Whatever file it fails at, nothing in the folder changes; and a folder that it made is gone again."""
    write, out = WRITERS[name], tmp_path / "old"
    write(out)
    count = len(files_of(out))
    assert count >= 2
    before = files_of(out)

    for failing in {*range(0, count, step), count - 1}:
        for target in (out, tmp_path / "fresh"):
            with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left"):
                patch.setattr(Path, "chmod", Failing(failing))
                write(target)
        assert files_of(out) == before
        assert not (tmp_path / "fresh").exists()


def test_one_file_that_cannot_be_read_is_named_and_the_rest_is_reported(tmp_path, monkeypatch, capsys):
    make_record().save(tmp_path / "a")
    make_record(seed=1).save(tmp_path / "b")
    (tmp_path / "b" / "record.json").write_text("{")
    make_line().save(tmp_path)
    (tmp_path / "landscape-broken.json").write_text("[")
    monkeypatch.setattr(sys, "argv", ["trainflat", "report", str(tmp_path), "--out", str(tmp_path / "out")])
    monkeypatch.setenv("COLUMNS", "200")
    cli.main()
    said = capsys.readouterr().out.splitlines()
    assert ["b/record.json" in line or "landscape-broken.json" in line for line in said[:3]] == [True, True, False]
    assert "Landscape" in (tmp_path / "out" / "report.html").read_text()
    found = find_results([tmp_path])
    assert (len(found.records), len(found.landscapes), len(found.left_out)) == (1, 1, 2)
    with pytest.raises(DamagedFile):
        find_results([tmp_path / "b"])
    with pytest.raises(InputError, match=r"no record.json at or below .*, and no landscape"):
        find_results([tmp_path / "out"])


@pytest.mark.usefixtures("blank")
def test_landscapes_alone_make_a_report(tmp_path):
    for landscape in make_landscapes():
        landscape.save(tmp_path / "in")
    found = find_results([tmp_path / "in"])
    page = write_report(found.records, tmp_path / "out", landscapes=found.landscapes)
    text = page.read_text(encoding="utf8")
    assert 'id="section-1"' in text and 'id="summary"' not in text and 'id="costs"' not in text
    assert {path.suffix for path in page.parent.rglob("*") if path.is_file()} == {".html", ".md", ".png", ".svg"}
