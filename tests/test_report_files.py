"""Reading runs from disk, and writing every format: whole, safe with hostile names, and the same each time."""

import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from tests.records import SPARSITIES, make_record, make_records
from trainflat.errors import DamagedFile, InputError, UnknownName
from trainflat.report import FORMATS, find_records, read_records, write_report
from trainflat.report.panels import make_panels
from trainflat.report.series import at, curves, focus, shares_seen, zero_grid

HOSTILE = '</script><script>alert("x")</script> $\\frac{ %{x} {{911*911}} <b>&amp;'
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
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "results.csv", "results.md"]


@pytest.mark.parametrize("case", ["a mixture", "hostile names"])
def test_figures_are_whole_files(case, tmp_path):
    assert write_report(ODD[case], tmp_path, ["png", "svg"]) == tmp_path
    pictures = sorted((tmp_path / "figures").iterdir())
    panels = len(make_panels(ODD[case]))
    assert [p.suffix for p in pictures].count(".png") == [p.suffix for p in pictures].count(".svg") == 3 * panels
    for path in pictures:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as image:
                image.verify()


def test_panels_whose_names_look_alike_get_files_of_their_own(tmp_path):
    records = [make_record("a b"), make_record("a-b"), make_record("a/b")]
    write_report(records, tmp_path, ["svg"])
    assert len(list((tmp_path / "figures").glob("score-*.svg"))) == 3


def test_same_records_same_bytes(tmp_path):
    records = [make_record(seed=1), make_record(optimizer={"name": "sam", "rho": 0.05})]
    for name, given in ("one", records), ("other", records[::-1]):
        write_report(given, tmp_path / name)
    written = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(written) == 3 + 2 * 3
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


def test_hostile_names_are_text_on_the_page(tmp_path):
    page = write_report(ODD["hostile names"], tmp_path, ["html"]).read_text(encoding="utf8")
    own = page[: page.index('<script type="application/json"')]
    data = page[len(own) : page.index("</script>", len(own))]
    assert "<script" not in own
    assert "&lt;script&gt;alert(&#34;x&#34;)" in own
    assert "<" not in data.split(">", 1)[1]
    assert "829921" not in own  # braces are not a template


def test_thirty_records_take_less_than_three_seconds(tmp_path):
    settings = [("stsb", "adamw"), ("stsb", "sam"), ("cola", "adamw"), ("cola", "sam"), ("rte", "sam")]
    records = [make_record(task, optimizer={"name": name}, seed=k) for task, name in settings for k in range(6)]
    started = time.perf_counter()
    write_report(records, tmp_path, ["html"])
    assert time.perf_counter() - started < 3


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

    monkeypatch.setattr("trainflat.files.os.fsync", full)
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
