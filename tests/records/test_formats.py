"""Every kind of record file: written whole, read back equal, refused in one line if newer, edited or not ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.landscapes import make_landscapes
from tests.support.records import comparison, diagnosis, make_record
from trainflat.core.errors import DamagedFile, InputError
from trainflat.records.base import Data, Format, added_later
from trainflat.records.comparison import COMPARISON
from trainflat.records.diagnosis import DIAGNOSES, Diagnoses
from trainflat.records.landscape import LANDSCAPE
from trainflat.records.run import RECORD, Record

ROOT = Path(__file__).resolve().parents[2]


FILES: dict[str, tuple[Format, Any]] = {
    "record": (RECORD, make_record(sparsities=(0.0, 0.5))),
    "diagnosis": (DIAGNOSES, Diagnoses(models=[diagnosis()], advice=["train it"])),
    "comparison": (COMPARISON, comparison([(1.0, None, 9)])),
    **{f"landscape {each.kind} {each.name}": (LANDSCAPE, each) for each in make_landscapes()},
}


@pytest.fixture(params=FILES)
def written(request, tmp_path):
    form, content = FILES[request.param]
    return form, content, form.write(tmp_path / "file.json", content)


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read(written):
    form, content, path = written
    assert form.read(path) == (content if form is not RECORD else content.model_copy(update={"digest": ""}))
    assert [each.name for each in path.parent.iterdir()] == ["file.json"]
    assert json.loads(path.read_text())["format"] == form.number


def test_another_version_is_named(written):
    form, _, path = written
    for number in (form.number + 1, 0, "1", None):
        change(path, format=number)
        with pytest.raises(InputError, match=r"file.json has another format \(.*\) than this trainflat reads \(1\)"):
            form.read(path)


@pytest.mark.parametrize("text", ["[1]", "{}", '{"format": 1, "digest": "x"}', "{", "null"])
def test_what_is_no_record_is_one_line(written, text):
    form, _, path = written
    path.write_text(text)
    with pytest.raises(DamagedFile) as caught:
        form.read(path)
    assert "\n" not in str(caught.value) and "file.json" in str(caught.value)


def test_an_unknown_field_is_refused(written):
    form, _, path = written
    change(path, surprise=1)
    with pytest.raises(DamagedFile, match="surprise: Extra inputs"):
        form.read(path)


def test_an_edit_breaks_the_digest_where_there_is_one(written):
    form, _, path = written
    if form.sealed is None:
        assert "digest" not in json.loads(path.read_text())
        return
    change(path, **{"seed": 7} if form is RECORD else {"title": "edited"})
    with pytest.raises(DamagedFile, match="changed after it was written"):
        form.read(path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/*/record.json")), ids=lambda path: path.parent.name)
def test_committed_records_are_read_and_written_as_they_are(path, tmp_path):
    record, before = Record.load(path), json.loads(path.read_text())
    record.save(tmp_path)
    after = json.loads((tmp_path / "record.json").read_text())
    before["task"] = {"positive": "", "notes": []} | before["task"]  # which these records lack where they are older
    assert after == before


class Old(Data):
    name: str


class New(Data):
    name: str
    share: float | None = added_later(None)
    notes: list[str] = added_later([])


def test_a_field_that_was_added_later_leaves_older_records_as_they_are():
    assert New(name="a").model_dump_json() == Old(name="a").model_dump_json()
    assert New(name="a", share=0.0, notes=["x"]).model_dump() == {"name": "a", "share": 0.0, "notes": ["x"]}


def test_records_load_no_torch():
    names = ", ".join(f"trainflat.records.{name}" for name in ("base", "run", "diagnosis", "comparison", "landscape"))
    program = f"import sys, {names}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
