"""What is committed as evidence names no place of the machine that it was taken on."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ABSOLUTE = re.compile(r'"(?:/[\w.-]+){2,}|[A-Z]:\\\\')


def test_no_record_has_an_absolute_path():
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in (ROOT / "results").rglob("*.json")
        if (match := ABSOLUTE.search(path.read_text(encoding="utf8")))
    }
    assert found == {}
    assert ABSOLUTE.search('"model": "/home/someone/runs"') and ABSOLUTE.search('"C:\\\\runs"')
