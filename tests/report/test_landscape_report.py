"""Landscapes on disk and in reports: read whole or refused in one line, drawn without torch, always the same bytes."""

import json
import math
import subprocess
import sys

import pytest
from PIL import Image
from pydantic import ValidationError

from tests.support.landscapes import make_landscapes, make_line, make_plane, make_spectrum
from tests.support.pages import HOSTILE, figures_of
from tests.support.records import make_record
from trainflat.cli import main as cli
from trainflat.core.errors import DamagedFile, InputError
from trainflat.records.landscape import LineRecord, PlaneRecord, load_landscape
from trainflat.report import find_landscapes, find_records, write_report
from trainflat.report.elements import Field, Line
from trainflat.report.sections.landscapes import Landscapes, density_range, landscape_table, loss_range, together


@pytest.fixture(autouse=True)
def without_plotly(monkeypatch):
    """Leaves plotly's five megabytes out of the page of surfaces, which no test here opens."""
    monkeypatch.setattr("trainflat.report.page.plotly", str)


@pytest.mark.parametrize("landscape", make_landscapes(), ids=lambda each: each.name)
def test_what_is_saved_is_read(landscape, tmp_path):
    path = landscape.save(tmp_path)
    assert path.name == f"landscape-{landscape.name}.json"
    assert load_landscape(path) == landscape


def test_names_are_file_names_on_every_system(tmp_path):
    path = make_line(name="../a b/ü:*" + "x" * 300).save(tmp_path)
    assert path.parent == tmp_path
    assert path.name == "landscape-..-a-b-" + "x" * (100 - 7) + ".json"


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], DamagedFile, "cannot be read"),
    "edited": (lambda text: text.replace("1,500", "1,501"), DamagedFile, "changed after it was written"),
    "not a number": (lambda text: text.replace("null", "NaN"), DamagedFile, "number that is not finite"),
    "another kind": (lambda text: resealed(text, kind="globe"), DamagedFile, "is not a landscape: .*'globe'"),
    "too few rows": (lambda text: resealed(text, y=[0.0, 1.0]), DamagedFile, "losses need 2 rows"),
    "a new field": (lambda text: resealed(text, depth=3), DamagedFile, "plane.depth: Extra inputs"),
    "newer": (lambda text: text.replace('"format": 1', '"format": 2'), InputError, "has another format"),
    "something else": (lambda text: '{"kind": "plane"}', InputError, "is no landscape that trainflat wrote"),
    "a list": (lambda text: "[1]", InputError, "is no landscape that trainflat wrote"),
}


def resealed(text, **changes):
    from trainflat.core.files import hash_json

    value = json.loads(text)
    form = {"format": value.pop("format")}
    del value["digest"]
    value |= changes
    return json.dumps(value | form | {"digest": hash_json(value)})


@pytest.mark.parametrize(("damage", "kind", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_clear_line(damage, kind, words, tmp_path):
    path = make_plane().save(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(kind, match=words) as caught:
        find_landscapes([tmp_path])
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


INVALID = {
    "ragged": lambda: PlaneRecord(name="a", x=[0, 1], y=[0, 1], losses=[[1, 2], [3]]),
    "infinite": lambda: PlaneRecord(name="a", x=[0, 1], y=[0, 1], losses=[[1, 2], [3, math.inf]]),
    "points without losses": lambda: PlaneRecord(
        name="a", x=[0, 1], y=[0, 1], losses=[[1, 2], [3, 4]], points={"a": (0, 0)}
    ),
    "one position": lambda: LineRecord(name="a", positions=[0], losses=[1]),
    "falling": lambda: LineRecord(name="a", positions=[1, 0], losses=[1, 2]),
    "no ends": lambda: LineRecord(name="a", positions=[0, 0.9], losses=[1, 2], ends=("a", "b")),
    "few scores": lambda: LineRecord(name="a", positions=[0, 1], losses=[1, 2], scores=[3]),
    "no width": lambda: make_spectrum().model_validate(make_spectrum().model_dump() | {"width": 0}),
    "few densities": lambda: make_spectrum().model_validate(make_spectrum().model_dump() | {"density": [1]}),
}


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
def test_what_cannot_be_a_landscape_is_none(make):
    with pytest.raises(ValidationError):
        make()


def test_planes_of_one_basis_stand_together_and_others_apart():
    shifted = make_plane("adam").model_copy(update={"y": [value + 1 for value in make_plane().y], "name": "other"})
    no_head = make_plane().model_copy(update={"head": ""})
    given = [make_spectrum(), make_line(), make_plane("sam"), shifted, make_plane("adam"), no_head]
    names = [[each.name for each in same] for same in together(given)]
    assert ["plane-adam", "plane-sam"] in names
    assert sorted(map(len, names)) == [1, 1, 1, 1, 2]
    assert together(given[::-1]) == together(given)


def test_figures_share_a_scale_and_mark_what_was_found():
    plane, line, spectrum = figures_of(Landscapes(), [], make_landscapes())
    contours = [plot.frames[0][0] for plot in plane.plots[:2] if isinstance(plot.frames[0][0], Field)]
    assert contours[0].low == contours[1].low == loss_range([make_plane("adam"), make_plane("sam")])[0]
    assert contours[0].z[0][0] is None
    assert [plot.title for plot in plane.plots] == [
        f"{kind} · head of {head}" for kind in ("Contours", "Surface") for head in ("adam", "sam")
    ]
    assert "barrier is 0.9 over the straight line" in line.caption
    bar = line.plots[0].frames[0][2]
    assert isinstance(bar, Line)
    assert bar.x == [0.5, 0.5]
    assert bar.y == pytest.approx((0.35, 1.25))
    assert spectrum.plots[0].frames[0][1].x == [14.0, 1.2]
    assert density_range(make_spectrum())[1] > max(make_spectrum().density)


ODD = {
    "flat": make_plane().model_copy(update={"losses": [[1.0] * 21] * 21}),
    "no number at all": make_plane().model_copy(
        update={"losses": [[None] * 21] * 21, "point_losses": dict.fromkeys(make_plane().points)}
    ),
    "no points": make_plane().model_copy(update={"points": {}, "point_losses": {}, "head": ""}),
    "smallest": PlaneRecord(name="a", x=[0, 1], y=[0, 1], losses=[[1, 2], [3, None]]),
    "a direction": LineRecord(name="a", positions=[-1, 1], losses=[1, None], axis="times the direction"),
    "no barrier": LineRecord(name="a", positions=[0, 1], losses=[1, 2], ends=("a", "b")),
    "an end is no number": LineRecord(name="a", positions=[0, 0.5, 1], losses=[None, 2, 3], ends=("a", "b")),
    "empty density": make_spectrum().model_copy(update={"density": [0.0] * 221, "top": []}),
    "hostile names": make_plane(HOSTILE, title=HOSTILE).model_copy(
        update={"points": {HOSTILE: (0, 0)}, "point_losses": {HOSTILE: 1.0}, "axes": (HOSTILE, HOSTILE)}
    ),
    "partial": make_line().model_copy(update={"partial": True}),
}


@pytest.mark.parametrize("landscape", ODD.values(), ids=ODD)
def test_every_landscape_is_drawn(landscape, tmp_path):
    page = write_report([make_record(sparsities=(0.0,))], tmp_path, ["html", "png", "md"], [landscape])
    own = page.read_text(encoding="utf8").split("<script>\n")[0]
    assert 'id="landscape-0"' in own
    assert (tmp_path / "figures" / "surfaces.html").exists() == isinstance(landscape, PlaneRecord)
    assert "<script" not in own
    assert ("partial data" in own.lower()) == landscape.partial
    (picture,) = (tmp_path / "figures").glob("landscape-*.png")
    with Image.open(picture) as image:
        image.verify()


def test_same_landscapes_same_bytes_and_figures_of_their_own(tmp_path):
    landscapes = [*make_landscapes(), make_line(name="again", title="AdamW: seed 0 to seed 1")]
    for name, given in ("one", landscapes), ("other", landscapes[::-1]):
        write_report([make_record(sparsities=(0.0,))], tmp_path / name, ["html", "svg", "md"], given)
    written = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len([path for path in written if path.name.startswith("landscape-")]) == 4
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


def test_a_report_without_landscapes_does_not_speak_of_them(tmp_path):
    page = write_report([make_record()], tmp_path, ["html", "md"])
    assert "andscape" not in page.read_text(encoding="utf8")
    assert "andscape" not in (tmp_path / "results.md").read_text(encoding="utf8")


def test_the_tables_name_models_barriers_and_eigenvalues():
    rows = [tuple(row.values()) for row in landscape_table(make_landscapes())]
    assert ("STS-B · minilm · head of sam", "adam", "loss", "0.9168") in rows
    assert ("AdamW, seed 0 to seed 1", "seed 0 – seed 1", "barrier", "0.9") in rows
    assert ("AdamW", "Hessian", "eigenvalue 1", "14") in rows


def test_landscapes_are_found_in_runs_and_beside_them_once(tmp_path):
    make_record().save(tmp_path / "runs" / "done")
    make_plane().save(tmp_path / "runs" / "done")
    make_line().save(tmp_path / "runs")
    make_line().save(tmp_path / "copy")
    make_spectrum().save(tmp_path / "runs" / "done" / "stages")  # below a run nothing is looked for
    (tmp_path / "runs" / "landscape.json").write_text("mine")
    (tmp_path / "runs" / ".hidden").mkdir()
    make_spectrum().save(tmp_path / "runs" / ".hidden")
    assert find_landscapes([tmp_path]) == sorted([make_plane(), make_line()], key=lambda each: each.model_dump_json())
    assert find_landscapes([tmp_path / "runs" / "done", tmp_path / "runs" / "done" / "record.json"]) == [make_plane()]
    alone = [tmp_path / "runs" / "done" / "record.json", tmp_path / "copy" / "landscape-barrier.json"]
    assert find_landscapes(alone) == [make_line()]
    assert len(find_records(alone).records) == 1


def test_the_command_line_picks_them_up(tmp_path, monkeypatch, capsys):
    make_record().save(tmp_path / "runs" / "done")
    path = make_plane().save(tmp_path / "runs" / "done")
    monkeypatch.setattr(sys, "argv", ["trainflat", "report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    cli.main()
    assert 'id="landscape-0"' in (tmp_path / "out" / "report.html").read_text(encoding="utf8")
    path.write_text(path.read_text()[:-200])
    capsys.readouterr()
    cli.main()
    assert f"left out: {path} cannot be read" in capsys.readouterr().out
    assert 'id="landscape-0"' not in (tmp_path / "out" / "report.html").read_text(encoding="utf8")


def test_drawing_needs_no_torch(tmp_path):
    make_record().save(tmp_path)
    make_plane().save(tmp_path)
    program = f"""
import sys
from pathlib import Path
from trainflat.report import find_landscapes, read_records, write_report
here = [Path({str(tmp_path)!r})]
write_report(read_records(here), here[0] / "out", ["html", "svg", "md"], find_landscapes(here))
assert not {{"torch", "transformers"}} & set(sys.modules)
assert list(here[0].glob("out/figures/landscape-*.svg"))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
