"""Lines of a report are paired by seed and rows, and a sentence says what their difference can tell."""

from collections.abc import Sequence

import pytest

from tests.support.paired import SAM, runs, with_rows
from tests.support.records import make_record
from trainflat.core.paired import Paired
from trainflat.records.run import Fingerprint, Record
from trainflat.report.paired import paired_points, sentence
from trainflat.report.panels import Point, at, make_panels


def points(records: Sequence[Record], target: float = 0.5) -> tuple[Point, Point]:
    (panel,) = make_panels(records)
    adamw, sam = (at(line, target) for line in panel.lines)
    assert adamw and sam
    return sam, adamw


def compared(records: Sequence[Record]) -> Paired:
    found = paired_points(*points(records))
    assert found
    return found


def test_the_digest_leaves_the_rows_out_and_old_records_have_none(tmp_path):
    old = make_record()
    assert "without" not in old.model_dump(mode="json")["stages"][0]
    new = with_rows(old)
    assert new.digest == old.digest
    new.save(tmp_path)
    assert Record.load(tmp_path) == new


def test_the_difference_is_the_mean_over_seeds():
    sam, adamw = points(runs([0, 1, 2]))
    found = compared(runs([0, 1, 2]))
    assert sam.score and adamw.score
    assert found.value == pytest.approx(sam.score.mean - adamw.score.mean)
    assert (found.seeds, found.rows, found.over) == (3, 1500, "seeds and rows")


def test_a_seed_that_one_line_lacks_is_left_out_and_one_that_ran_twice_counts_once():
    all_three = runs([0, 1, 2])
    assert compared([*all_three, *runs([3])[:1]]) == compared(all_three)
    again = with_rows(make_record(optimizer=SAM, seed=1, name="again"))
    assert compared([*all_three, again]) == pytest.approx(compared(all_three))
    assert paired_points(*points([*runs([0])[:1], *runs([1])[1:]])) is None


def test_records_of_before_are_compared_by_seeds_alone():
    old = [make_record(optimizer=o, seed=seed) for o in (None, SAM) for seed in (0, 1, 2)]
    assert compared(old).over == "seeds"
    assert compared([*old[:5], with_rows(old[5])]).over == "seeds"
    assert compared([old[0], old[3]]).over == "number of rows"


def test_rows_that_differ_between_lines_are_not_paired():
    ours = runs([0, 1, 2])
    other = Fingerprint(rows=1500, sha256="3f" * 32, source="file:other.parquet")
    changed = [r.model_copy(update={"data": r.data | {"validation": other}}).sealed() for r in ours[3:]]
    assert compared([*ours[:3], *changed]).over == "seeds"
    held_out = [
        r.model_copy(
            update={"data": r.data | {"validation": other.model_copy(update={"sha256": f"{r.seed}" * 64})}}
        ).sealed()
        for r in ours
    ]
    assert compared(held_out).over == "seeds and rows"
    assert compared(held_out).high < compared(ours).high  # of all seeds' rows none is common


ROWS, SEED = "1,043 rows", "(another seed may differ by more)"
SENTENCES = {
    ("+0.4 (−0.7 to 1.5)", f"3 seeds and {ROWS}", "not told apart"): (0.4, -0.7, 1.5, 3, "seeds and rows"),
    ("+1.4 (0.3 to 2.5)", f"3 seeds and {ROWS}", "sam is higher"): (1.4, 0.3, 2.5, 3, "seeds and rows"),
    ("−1.4 (−2.5 to −0.3)", f"3 seeds (another draw of the {ROWS} may differ by more)", "sam is lower"): (
        *(-1.4, -2.5, -0.3),
        *(3, "seeds"),
    ),
    ("+0.0 (−1.0 to 1.0)", f"{ROWS} of one seed {SEED}", "not told apart"): (0.01, -1.0, 1.0, 1, "rows"),
    ("+0.1 (−3.0 to 3.2)", f"one seed, bounded by its {ROWS} {SEED}", "not told apart"): (
        *(0.1, -3.0, 3.2),
        *(1, "number of rows"),
    ),
}


@pytest.mark.parametrize(("parts", "given"), SENTENCES.items())
def test_a_sentence_says_what_can_be_told(parts, given):
    value, low, high, seeds, over = given
    found = Paired(value, low, high, 0.01, seeds, 1043, over)
    said = "sam − adamw at 50 %: {} over {}: {}".format(*parts)
    assert sentence(found, "sam", "adamw", "50 %") == said
    if found.significant:
        doubt = sentence(found, "sam", "adamw", "50 %", adjusted=0.2)
        assert doubt == f"{said} on its own, but not among so many comparisons"
        assert sentence(found, "sam", "adamw", "50 %", adjusted=0.04) == said
