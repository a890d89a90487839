"""Which rows are trained on, and that their fingerprint tells."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.core.errors import InputError
from trainflat.tasks.repeats import repeat_notes, text_keys
from trainflat.tasks.rows import Rows, join
from trainflat.tasks.splits import draw, hold_out

labels = st.lists(st.integers(0, 3), min_size=4, max_size=60)


def rows_of(values):
    return Rows({"text": [f"row {i}" for i in range(len(values))], "label": list(values)}, "file:x.csv")


@settings(deadline=None)
@given(labels, st.floats(0.2, 0.8), st.integers(0, 2**63))
def test_what_is_held_out_and_what_stays_are_all_rows_once_and_in_order(values, share, seed):
    rows = rows_of(values)
    stay, held = hold_out(rows, share, seed, by_class=False)
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
    assert hold_out(rows_of(range(12)), 0.25, 7, by_class=False)[1].columns["label"] == [5, 9, 11]
    assert hold_out(rows_of([0, 0, 1] * 4), 0.25, 7, by_class=True)[1].columns["text"] == ["row 7", "row 9", "row 11"]


@settings(deadline=None)
@given(labels, st.floats(0.05, 0.8), st.integers(0, 2**63))
def test_every_class_with_two_rows_is_on_both_sides_in_its_share(values, share, seed):
    counts = Counter(values)
    if max(counts.values()) < 2 or round(share * len(values)) not in range(1, len(values)):
        return
    held = Counter(hold_out(rows_of(values), share, seed, by_class=True)[1].columns["label"])
    assert len(counts) == 1 or all((0 < held[k] < n) == (n > 1) for k, n in counts.items())
    if len(counts) > 1:
        assert all(abs(held[k] - share * n) <= 1.5 for k, n in counts.items())


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a b", "A  b", "b a", "c", "C", "d", "e f", "g"]), min_size=4, max_size=40), st.data())
def test_rows_of_one_text_stay_on_one_side(texts, data):
    pair = data.draw(st.booleans())
    rows = rows_of([data.draw(st.integers(0, 1)) for _ in texts])
    columns = {**rows.columns, "text": texts, **({"text_pair": texts[::-1]} if pair else {})}
    rows = Rows(columns, "file:x.csv")
    try:
        stay, held = hold_out(rows, 0.4, data.draw(st.integers(0, 9)), by_class=data.draw(st.booleans()))
    except InputError:  # all are one text
        assert len(set(text_keys(rows))) < 3
        return
    assert not set(text_keys(stay)) & set(text_keys(held))
    assert len(stay) + len(held) == len(rows)


LEAKS = {
    "as it is": ([["a film"], ["bad"]], [["a film"], ["good"]], "1 of the 2 validation rows are training rows"),
    "capitals and spaces": ([["a film"], ["bad"]], [[" A  Film"], ["BAD"]], "2 of the 2 validation rows"),
    "accents, widths and marks that are not seen": (
        [["caf\u00e9"], ["bad"]],
        [["cafe\u0301"], ["\u200b\uff22ad\u00ad"]],
        "2 of the 2 validation rows",
    ),
    "a pair turned round": ([["q", "a"], ["r", "b"]], [["A", "q"], ["r", "c"]], "1 of the 2 .*such as 'A'"),
}


@pytest.mark.parametrize("case", LEAKS)
def test_texts_that_are_trained_on_and_scored_are_named(case):
    training, evaluation, message = LEAKS[case]

    def of(texts):
        columns = dict(zip(("text", "text_pair"), map(list, zip(*texts, strict=True)), strict=False))
        return Rows({**columns, "label": [0, 1]}, "file:x.csv")

    [note] = repeat_notes(of(training), {"validation": of(evaluation)}, ("no", "yes"))
    assert re.match(message, note), note
    assert repeat_notes(of(training), {"validation": of([["x", "y"], ["u", "v"]])}, ("no", "yes")) == []


def test_one_text_with_two_labels_is_named():
    rows = Rows({"text": ["So so", "so  so", "fine"], "label": [0, 1, 1]}, "file:x.csv")
    [note] = repeat_notes(rows, {}, ("no", "yes"))
    assert note.startswith("1 text of the training rows has two labels, such as 'So so' (no and yes)")
    assert repeat_notes(rows, {}, ()) == []  # a similarity may well differ


@settings(deadline=None)
@given(labels, st.data())
def test_the_fingerprint_changes_with_any_cell_and_with_the_order(values, data):
    rows = rows_of(values)
    at = data.draw(st.integers(0, len(values) - 1))
    changed = rows_of([*values[:at], values[at] + 1, *values[at + 1 :]])
    assert rows.fingerprint() == rows_of(values).fingerprint()
    assert rows.fingerprint().sha256 != changed.fingerprint().sha256
    assert rows.fingerprint().sha256 != rows.select(range(len(values))[::-1]).fingerprint().sha256


def test_joined_rows_keep_order_and_marks():
    whole, part = rows_of([0, 1]), rows_of([2, 3]).select([1])
    both = join([whole, part])
    assert both.columns["label"] == [0, 1, 3]
    assert both.source == "file:x.csv+file:x.csv"
    assert both.partial
    assert not join([whole]).partial


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_rows_than_there_are_cannot_be_drawn(count):
    with pytest.raises(InputError, match=f"from 1 to the 3 there are, got {count}"):
        draw(rows_of([0, 1, 2]), count, 0)
