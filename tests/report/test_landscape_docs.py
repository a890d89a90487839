"""What docs/landscape.md shows is tried, and a report shows it."""

import re
from pathlib import Path

from tests.support.records import make_record
from trainflat.report import find_landscapes, write_report

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "landscape.md"


def test_python_of_the_guide_runs_and_a_report_shows_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf8"), flags=re.DOTALL | re.MULTILINE):
        exec(block, names)  # noqa: S102
    written = sorted(path.name for path in (tmp_path / "runs").glob("landscape-*"))
    assert written == [
        f"landscape-{name}.json" for name in ("barrier", "line", "plane-head-adam", "plane-head-sam", "spectrum")
    ]
    page = write_report([make_record(sparsities=(0.0,))], tmp_path, ["html"], find_landscapes([tmp_path / "runs"]))
    own = page.read_text(encoding="utf8")
    assert "Contours · head of sam" in own
    assert "Surface · head of sam" in (tmp_path / "figures" / "surfaces.html").read_text(encoding="utf8")
    assert "the line from AdamW (0) to SAM (1)" in own
