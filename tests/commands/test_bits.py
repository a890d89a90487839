"""What the fixed tiny runs of :mod:`tests.support.bits` learned is what they learned when ``bits.json`` was written."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import bits

KEPT = json.loads(bits.KEPT.read_text(encoding="utf8"))
CASES = dict(bits.cases())
QUICK = ("optimizer sam", "gate hard-movement", "averaging ema", "rewind 2", "q8bert", "powerprop", "teacher renewed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bits.make_place(tmp_path_factory.mktemp("bits"))


def test_every_case_is_kept() -> None:
    assert KEPT["runs"].keys() == CASES.keys()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
def test_a_change_of_the_code_leaves_the_bits_alone(name: str, place: Path, tmp_path: Path) -> None:
    found, kept = bits.run(place, CASES[name], tmp_path / "runs"), KEPT["runs"][name]
    if bits.environment() != KEPT["environment"]:  # sums are added in another order there
        found, kept = map(_near, (found, kept))
    assert found == kept


def _near(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages without what rounding decides: losses agree to two digits, masks in their number of zeros."""
    return [
        {key: stage[key] for key in ("stage", "passes", "zeros")} | {"losses": pytest.approx(stage["losses"], abs=0.05)}
        for stage in stages
    ]
