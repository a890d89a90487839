"""SQuAD v1.1: the official scores, windows that lose nothing, spans as a slow search finds them."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.core.errors import InputError
from trainflat.tasks import TASKS
from trainflat.tasks.spans import _cut_questions, best_span
from trainflat.tasks.squad_metrics import best_over, exact_match, normalize, token_f1

# By hand from the official evaluate-v1.1.py: lower, drop punctuation, drop articles, join; multisets of tokens.
CASES = [
    ("the Eiffel Tower", "Eiffel tower.", 1, 1),
    ("Eiffel", "The Eiffel Tower", 0, 2 / 3),  # precision 1, recall 1/2
    ("in 1889 in Paris", "in Paris", 0, 2 / 3),  # 2 of 4, 2 of 2; the second "in" counts once
    ("in in", "in", 0, 2 / 3),
    ("U.S.", "us", 1, 1),  # marks vanish and leave no gap
    ("well-known", "well known", 0, 0),
    ("Lyon", "Paris", 0, 0),
    ("the", "a", 1, 0),  # both come to nothing: equal, but without a common token
    ("", "Paris", 0, 0),
    ("another theory", "theory", 0, 2 / 3),  # "an" and "the" only as whole words
    ("  Two\n words ", "two words", 1, 1),
    ("x–the–y", "x– –y", 1, 1),  # an article leaves a gap; a dash is none of the script's marks
]


@pytest.mark.parametrize(("prediction", "gold", "em", "f1"), CASES)
def test_official_scores(prediction, gold, em, f1):
    assert exact_match(prediction, gold) == em
    assert token_f1(prediction, gold) == pytest.approx(f1)


def test_the_best_gold_answer_counts_and_questions_are_averaged():
    predictions, golds = ["Paris", "Eiffel"], [["Lyon", "paris"], ["Eiffel Tower", "Tower"]]
    assert best_over(exact_match, predictions, golds) == 50
    assert best_over(token_f1, predictions, golds) == pytest.approx(100 * (1 + 2 / 3) / 2)


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_normalizing_twice_changes_nothing_in_words(one, two):
    assert token_f1(one, two) == pytest.approx(token_f1(two, one))
    assert 0 <= token_f1(one, two) <= 1
    assert normalize(f" {one} ") == normalize(one)


logits = st.lists(st.integers(-6, 6), min_size=6, max_size=6)


@settings(deadline=None)
@given(logits, logits, st.lists(st.booleans(), min_size=6, max_size=6), st.integers(1, 6), st.integers(1, 4))
def test_the_best_span_is_that_of_a_slow_search(start, end, inside, n_best, longest):
    start, end = np.array(start, float), np.array(end, float)
    offsets = np.array([[3 * i, 3 * i + 2] if yes else [-1, -1] for i, yes in enumerate(inside)], dtype=np.int32)
    tokens = [i for i in range(6) if inside[i]]
    starts, ends = (sorted(tokens, key=lambda i: -part[i])[:n_best] for part in (start, end))
    allowed = [(start[i] + end[j], 3 * i, 3 * j + 2) for i in starts for j in ends if 0 <= j - i < longest]
    found = best_span(start, end, offsets, n_best, longest)
    assert (found is None) == (not allowed)
    if found is not None:
        assert found in allowed
        assert found[0] == max(allowed)[0]


CONTEXT = "Zurich lies by a lake. " * 12 + "In 1889 the old bridge was built of oak. " + "Boats went by all day. " * 12


def question(text="What was built?", answer="the old bridge", context=CONTEXT, start=None):
    at = context.index(answer) if start is None else start
    return {"id": "1", "question": text, "context": context, "answers": {"text": [answer], "answer_start": [at]}}


@pytest.fixture
def make(tmp_path):
    def task(*rows, **options):
        for split in ("train", "validation"):
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
        return TASKS.build("squad", data=tmp_path, seed=0, **options)

    return task


@pytest.mark.parametrize("stride", [0, 5, 20])
def test_windows_overlap_by_the_stride_and_cover_the_paragraph(make, minilm_tokenizer, stride):
    split = make(question(), doc_stride=stride).encode(minilm_tokenizer, 40)[1]["validation"]
    parts = sorted((offsets[offsets[:, 0] >= 0] for offsets in split.extras["offsets"]), key=lambda part: part[0, 0])
    assert len(parts) > 3
    for one, two in pairwise(parts):
        assert len({tuple(o) for o in one.tolist()} & {tuple(o) for o in two.tolist()}) == stride
    whole = minilm_tokenizer(CONTEXT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert {tuple(o) for part in parts for o in part.tolist()} == set(whole)


@pytest.mark.parametrize("max_length", range(26, 42))  # so that the answer is cut by the edge of a window in some
def test_positions_are_those_of_the_answer_or_of_the_first_token(make, minilm_tokenizer, max_length):
    train = make(question(), doc_stride=4).encode(minilm_tokenizer, max_length)[0]
    found = 0
    for row in train.rows:
        span = row["input_ids"][row["start_positions"] : row["end_positions"] + 1]
        if row["start_positions"]:
            assert minilm_tokenizer.decode(span) == "the old bridge"
            found += 1
        else:
            assert span == [minilm_tokenizer.cls_token_id]
    # The answer's three tokens are whole in one window or in two that overlap, never in all.
    assert 1 <= found <= 2 < len(train)


def test_spaces_around_an_answer_do_not_hide_it(make, minilm_tokenizer):
    train = make(question(answer=" the old bridge ")).encode(minilm_tokenizer, 512)[0]
    row = train.rows[0]
    assert (
        minilm_tokenizer.decode(row["input_ids"][row["start_positions"] : row["end_positions"] + 1]) == "the old bridge"
    )


def test_the_best_window_answers(make, minilm_tokenizer):
    task = make(question(), doc_stride=10)
    split = task.encode(minilm_tokenizer, 40)[1]["validation"]
    start = np.zeros((len(split), max(split.lengths)))
    end = start.copy()
    for i, row in enumerate(split.rows):
        start[i, row["start_positions"]], end[i, row["end_positions"]] = 3, 3
    assert task.answers(split, (start, end)) == ["the old bridge"]
    padded = [np.pad(part, ((0, 0), (0, 7)), constant_values=99) for part in (start, end)]
    assert task.answers(split, tuple(padded)) == ["the old bridge"]


def test_answers_are_not_longer_than_allowed(make, minilm_tokenizer):
    task = make(question(), max_answer_length=2)
    split = task.encode(minilm_tokenizer, 512)[1]["validation"]
    row = split.rows[0]
    start, end = np.zeros((1, split.lengths[0])), np.zeros((1, split.lengths[0]))
    start[0, row["start_positions"]], end[0, row["end_positions"]] = 3, 2
    assert task.answers(split, (start, end)) != ["the old bridge"]
    assert len(task.answers(split, (start, end))[0].split()) <= 2


def test_a_stride_that_leaves_no_room_is_refused_before_the_tokenizer_panics(make, minilm_tokenizer):
    task = make(question(), doc_stride=33)
    assert len(task.encode(minilm_tokenizer, 41)[0]) > 3  # 41 - 3 special - 4 of the question = 34
    with pytest.raises(InputError, match=r"doc_stride is 33, but max_length 40 .* only 33 tokens"):
        task.encode(minilm_tokenizer, 40)


def test_long_questions_are_cut_and_leading_space_dropped(make, minilm_tokenizer):
    cut, longest = _cut_questions(minilm_tokenizer, ["   What? ", "why " * 200])
    assert cut == ["What? ", " ".join(["why"] * 64)]
    assert longest == 64
    task = make(question(text=" " * 500 + "why " * 300), doc_stride=10)
    train = task.encode(minilm_tokenizer, 128)[0]
    assert max(train.lengths) == 128
    assert all(row["input_ids"].count(minilm_tokenizer.convert_tokens_to_ids("why")) == 64 for row in train.rows)


def test_a_tokenizer_without_offsets_is_refused(make, minilm_tokenizer, monkeypatch):
    monkeypatch.setattr(type(minilm_tokenizer), "is_fast", False)
    with pytest.raises(InputError, match="character offsets"):
        make(question()).encode(minilm_tokenizer, 128)


def test_answers_in_a_csv_are_json(tmp_path):
    import csv

    row = question()
    for split in ("train", "validation"):
        with (tmp_path / f"{split}.csv").open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow({**row, "answers": json.dumps(row["answers"])})
    assert TASKS.build("squad", data=tmp_path, seed=0).training.columns["answers"] == [["the old bridge"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (question(start=3), "row 2, column 'answers': 'the old bridge' is not at character 3"),
        (question(start=-1, answer="."), "is not at character -1"),
        ({**question(), "answers": {"text": [], "answer_start": []}}, "row 2, column 'answers': there is no answer"),
        ({**question(), "answers": {"text": ["a"]}}, "row 2, column 'answers': .* is not of the form"),
        ({**question(), "answers": None}, "is not of the form"),
        ({**question(), "answers": "oak"}, "'oak' is not of the form"),
        ({**question(), "answers": {"text": ["a"], "answer_start": [float("inf")]}}, "row 2, .* is not of the form"),
        ({**question(), "answers": "[" * 100_000}, "row 2, .* is not of the form"),
        ({**question(), "context": None}, "row 2, column 'context': the text is missing"),
        ({**question(), "question": ""}, "row 2, column 'question': the text is empty"),
    ],
)
def test_bad_rows_are_named(make, row, message):
    with pytest.raises(InputError, match=message) as caught:
        make(question(), row)
    assert "train.jsonl" in str(caught.value)


@pytest.mark.parametrize("option", ["doc_stride", "n_best", "max_answer_length"])
def test_options_out_of_range_are_refused(make, option):
    with pytest.raises(InputError, match=f"^{option} is .* got -1"):
        make(question(), **{option: -1})


def test_real_answers_come_back_exactly(shared_data, minilm_tokenizer):
    options = {"train": "train_partial", "holdout": 0.05, "rows": 50, "max_answer_length": 384}
    task = TASKS.build("squad", data=shared_data, seed=0, **options)
    split = task.encode(minilm_tokenizer, 384)[1]["holdout"]
    start = np.full((len(split), max(split.lengths)), -9.0)
    end = start.copy()
    for i, row in enumerate(split.rows):
        if row["start_positions"]:
            start[i, row["start_positions"]], end[i, row["end_positions"]] = 9, 9
    answers = task.answers(split, (start, end))
    golds = [answer[0] for answer in task.evaluation["holdout"].columns["answers"]]
    assert len(answers) == len(golds) == 594
    other = [(answer, gold) for answer, gold in zip(answers, golds, strict=True) if not exact_match(answer, gold)]
    # A gold answer that ends inside a token ("ten" in "contenders") cannot be pointed at.
    assert all(gold in answer for answer, gold in other), other
    assert len(other) <= 5
    assert task.score(split, (start, end))["exact_match"] == pytest.approx(100 * (1 - len(other) / 594))
