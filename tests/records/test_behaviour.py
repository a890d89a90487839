"""Failures are one bit per case, and records without them keep their digests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import make_record
from trainflat.core.errors import DamagedFile
from trainflat.core.untrusted import validated
from trainflat.records.behaviour import Checklist, Loyalty, SuiteTest, pack, unpack


@given(st.lists(st.booleans(), max_size=40))
def test_flags_are_read_as_they_were_written(flags: list[bool]) -> None:
    assert unpack(pack(flags), len(flags)) == flags
    assert len(pack(flags)) == 2 * -(-len(flags) // 8)


def made(**changes: object) -> dict[str, object]:
    return {"name": "t", "capability": "C", "type": "INV", "cases": 9, "failed": "8080", "left_out": "4000"} | changes


def test_cases_that_do_not_apply_neither_pass_nor_fail() -> None:
    test = SuiteTest.model_validate(made())
    assert test.failures == [True, None, False, False, False, False, False, False, True]
    assert "left_out" not in SuiteTest.model_validate(made(left_out="")).model_dump()


@pytest.mark.parametrize("change", [{"failed": "80"}, {"failed": "80zz"}, {"left_out": "400000"}, {"cases": 17}])
def test_bits_that_do_not_fit_are_damage(change: dict[str, object]) -> None:
    with pytest.raises(DamagedFile):
        validated(made(**change), SuiteTest, "a record", "Move it.")


def test_what_was_not_measured_is_not_in_a_record_and_what_was_is_in_its_digest() -> None:
    record = make_record()
    stage = record.stages[-1]
    assert not {"loyalty", "checklist"} & set(stage.model_dump())
    loyalty = Loyalty(to="dense", base=2, scores={"label": 90.0})
    checklist = Checklist(suite="s", sha256="", most=9, seed=0, tests=[SuiteTest.model_validate(made())])
    for change in ({"loyalty": loyalty}, {"checklist": checklist}):
        other = record.model_copy(update={"stages": [*record.stages[:-1], stage.model_copy(update=change)]})
        assert other.sealed().digest != record.digest
