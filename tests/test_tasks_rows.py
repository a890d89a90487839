"""Which rows are trained on, and that their fingerprint tells."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.errors import InputError
from trainflat.tasks.rows import Rows, draw, hold_out, join

labels = st.lists(st.integers(0, 3), min_size=4, max_size=60)


def rows_of(values):
    return Rows({"text": [f"row {i}" for i in range(len(values))], "label": list(values)}, "file:x.csv")


@settings(deadline=None)
@given(labels, st.floats(0.2, 0.8), st.integers(0, 2**63))
def test_what_is_held_out_and_what_stays_are_all_rows_once_and_in_order(values, share, seed):
    rows = rows_of(values)
    stay, held = hold_out(rows, share, seed)
    pairs = [list(zip(part.columns["text"], part.columns["label"], strict=True)) for part in (stay, held)]
    assert len(held) == round(share * len(rows))
    assert sorted(pairs[0] + pairs[1]) == sorted(zip(rows.columns["text"], rows.columns["label"], strict=True))
    for part in (stay, held):
        numbers = [int(text.split()[1]) for text in part.columns["text"]]
        assert numbers == sorted(numbers)
        assert part.partial


@settings(deadline=None)
@given(labels, st.integers(0, 2**63), st.data())
def test_drawn_rows_are_rows(values, seed, data):
    rows = rows_of(values)
    count = data.draw(st.integers(1, len(rows)))
    drawn = draw(rows, count, seed)
    assert len(set(drawn.columns["text"])) == len(drawn) == count
    assert drawn.partial == (count < len(rows))


def test_a_seed_always_draws_the_same():
    # Written down once: a run that is resumed with a newer numpy must hold out the same rows.
    assert hold_out(rows_of(range(12)), 0.25, 7)[1].columns["label"] == [5, 9, 11]


@settings(deadline=None)
@given(labels, st.data())
def test_the_fingerprint_changes_with_any_cell_and_with_the_order(values, data):
    rows = rows_of(values)
    at = data.draw(st.integers(0, len(values) - 1))
    changed = rows_of([*values[:at], values[at] + 1, *values[at + 1 :]])
    assert rows.fingerprint() == rows_of(values).fingerprint()
    assert rows.fingerprint().sha256 != changed.fingerprint().sha256
    assert rows.fingerprint().sha256 != rows.take(range(len(values))[::-1]).fingerprint().sha256


def test_joined_rows_keep_order_and_marks():
    whole, part = rows_of([0, 1]), rows_of([2, 3]).take([1])
    both = join([whole, part])
    assert both.columns["label"] == [0, 1, 3]
    assert both.source == "file:x.csv+file:x.csv"
    assert both.partial
    assert not join([whole]).partial


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_rows_than_there_are_cannot_be_drawn(count):
    with pytest.raises(InputError, match=f"from 1 to the 3 there are, got {count}"):
        draw(rows_of([0, 1, 2]), count, 0)
