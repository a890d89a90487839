"""What docs/export.md shows is tried, and its tables are the code's."""

import math
import re
from pathlib import Path

import pytest

from trainflat.core.files import read_json
from trainflat.export import EXPORTERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf8")


def test_the_table_of_formats_is_complete():
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (.*?) \| (.*?) \| (.*?) \| ([^|]*?) \|$", PAGE.partition("## ")[0], flags=re.MULTILINE
    )
    assert [name for name, *_ in rows] == list(EXPORTERS)
    for name, options, file, loaded_by, differs in rows:
        stated = dict(re.findall(r"`(\w+)` (\w+)", options))
        assert stated == {key: str(parameter.default).lower() for key, parameter in EXPORTERS.options(name).items()}
        exporter = EXPORTERS.build(name)
        assert f"`{exporter.file}`" in file
        assert differs.startswith(
            "rounding" if exporter.tolerance == math.inf else f"{exporter.tolerance:.0e}".replace("e-0", "e-")
        )
        assert ("pip install" in loaded_by) == bool(exporter.extra) and exporter.extra in loaded_by


SIZES = re.findall(r"^\| (\d+) % \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize(("zeros", "values", "mb", "share", "ratio"), SIZES)
def test_the_sizes_are_those_of_the_record(zeros, values, mb, share, ratio):
    figures = read_json(ROOT / "results" / "benchmarks" / "sizes.json")["figures"]
    one = f"{zeros}% zeros, {values} values: encoder"
    names = (f"{one} [MB]", f"{one} over dense [×]", f"{one}, matrices over the bound [×]")
    for told, measured in zip((mb, share, ratio), (figures[name] for name in names), strict=True):
        assert float(told) == pytest.approx(measured, rel=5e-3)


def test_sizes_are_stated():
    assert {(zeros, values) for zeros, values, *_ in SIZES} == {(z, v) for z in ("90", "97") for v in ("fp32", "int8")}
