"""What rows can tell: margins of differences of scores, and whether answers are more than a blind one."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import make_record
from trainflat.core.margins import GROUPS, Answers, Score, difference
from trainflat.evaluation import main_score
from trainflat.records.run import Int8, Record, Stage
from trainflat.tasks.base import EncodedSplit, Head
from trainflat.tasks.rows import Rows
from trainflat.tasks.squad import Squad
from trainflat.tasks.text import TextTask


def text_task(labels, metric="accuracy", classes=("no", "yes")) -> tuple[TextTask, EncodedSplit]:
    """A task of a few rows, which stand backwards in its encoded split."""
    kind = "classification" if classes else "regression"
    rows = Rows({"text": ["a"] * len(labels), "label": list(labels)}, "file:rows.csv")
    task = TextTask("files", Head(kind, tuple(classes)), (metric,), rows, {"validation": rows})
    backwards = list(range(len(labels)))[::-1]
    encoded = [{"input_ids": [1], "labels": labels[k]} for k in backwards]
    return task, EncodedSplit("validation", encoded, [1] * len(labels), order=backwards)


def scored(labels, answers, metric="accuracy", classes=("no", "yes")):
    task, split = text_task(labels, metric, classes)
    logits = np.array(answers[::-1], dtype=float)
    return main_score(task, split, np.eye(len(classes))[logits.astype(int)] if classes else logits)


def test_five_rows_that_speak_for_one_side_are_told_apart_and_four_are_not():
    gold = [0, 1] * 150
    for wrong, told in ((5, True), (4, False), (2, False), (0, False)):
        answers = [1 - label if 7 * wrong > k and k % 7 == 0 else label for k, label in enumerate(gold)]
        one, other = scored(gold, gold)[0], scored(gold, answers)[0]
        found = difference(one, other)
        assert (found.significant, round(found.value * 3)) == (told, wrong)
        assert difference(other, one).significant == told


def test_rows_are_paired_in_the_order_of_the_data():
    gold = [0, 1] * 100
    answers = [1, 0, *gold[2:]]
    one = scored(gold, answers)[0]
    task, split = text_task(gold)
    forwards = EncodedSplit("validation", split.rows[::-1], split.lengths, order=split.order[::-1])
    assert main_score(task, forwards, np.eye(2)[answers])[0] == one
    assert len(one.without) == GROUPS


def test_two_equal_models_are_told_apart_in_at_most_about_five_of_a_hundred_draws():
    draw, told = np.random.default_rng(0), {"paired": 0, "bound": 0}
    for _ in range(300):
        gold = draw.integers(0, 2, 200)
        answers = [np.where(draw.random(200) < 0.25, 1 - gold, gold).tolist() for _ in range(2)]
        one, other = (scored(gold.tolist(), given)[0] for given in answers)
        told["paired"] += difference(one, other).significant
        told["bound"] += difference(one.model_copy(update={"without": []}), other).significant
    assert told["paired"] <= 22
    assert told["bound"] <= 22


@given(st.floats(-100, 100), st.integers(1, 10**6), st.sampled_from(["accuracy", "matthews", "f1"]))
def test_a_score_is_never_told_apart_from_itself(value: float, rows: int, metric: str):
    score = Score(value=value, rows=rows, metric=metric)
    assert not difference(score, score).significant
    paired = score.model_copy(update={"without": [value] * GROUPS})
    found = difference(paired, paired)
    assert found.low < 0 < found.high


BLIND = {
    "constant": (
        [0] * 60 + [1] * 40,
        [0] * 100,
        "accuracy",
        ("no", "yes"),
        "every answer is no: no better than always",
    ),
    "one class": ([1] * 50, [1] * 50, "accuracy", ("no", "yes"), "every answer is yes: .* which scores 100.0"),
    "constant f1": ([0] * 10 + [1] * 90, [1] * 100, "f1", ("no", "yes"), "always answering yes, which scores 94.7"),
    "matthews": (
        [0, 1] * 50,
        [0, 0, 1, 1] * 25,
        "matthews",
        ("no", "yes"),
        "no better than always .* which scores 0.0",
    ),
    "majority": (
        [0] * 90 + [1] * 10,
        [0] * 80 + [1] * 20,
        "accuracy",
        ("no", "yes"),
        "^no better than always answering no",
    ),
    "a little above": (
        [0, 1] * 50,
        [0, 1] * 26 + [0] * 48,
        "accuracy",
        ("no", "yes"),
        "^100 rows do not distinguish it from",
    ),
    "regression": ([k / 10 for k in range(50)], [2.5] * 50, "pearson", (), "every answer is 2.50: .* the mean"),
    "nearly one number": (
        [k / 10 for k in range(50)],
        [2.5 + 1e-7 * k for k in range(50)],
        "pearson",
        (),
        "every answer",
    ),
    "turned round": (
        [k / 10 for k in range(50)],
        [-k / 10 for k in range(50)],
        "pearson",
        (),
        "^no better than .* 0.0",
    ),
    "three classes": ([0, 1, 2] * 20, [0] * 60, "f1", ("a", "b", "c"), "every answer is a: no better than always"),
}


@pytest.mark.parametrize(("gold", "answers", "metric", "classes", "words"), BLIND.values(), ids=BLIND)
def test_answers_that_learned_nothing_are_told(gold, answers, metric, classes, words):
    answers_found = scored(gold, answers, metric, classes)[1]
    assert re.search(words, answers_found.remark()), answers_found.remark()


@pytest.mark.long
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["accuracy", "f1", "matthews"]))
def test_random_answers_are_never_called_better_than_blind_ones_and_right_ones_are(seed: int, metric: str):
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, 2, 400).tolist()
    assert scored(gold, gold, metric)[1].remark() == ""
    shuffled = draw.permutation(gold).tolist()
    found = scored(gold, shuffled, metric)[1]
    assert found.remark() or found.low < 5  # one draw in forty is above by chance


def test_questions_are_answered_with_nothing():
    texts = ["Paris is big"] * 30
    rows = Rows({"question": ["where"] * 30, "context": texts, "answers": [["Paris"]] * 30, "starts": [[0]] * 30}, "x")
    task = Squad.__new__(Squad)
    task.evaluation, task.n_best, task.max_answer_length = {"validation": rows}, 20, 30
    offsets = [np.array([[-1, -1], [0, 5], [6, 8], [9, 12]])] * 30
    split = EncodedSplit("validation", [{}] * 30, [4] * 30, {"question": list(range(30)), "offsets": offsets})
    first, last = np.eye(4)[[1] * 30], np.eye(4)[[3] * 30]
    score, answers = main_score(task, split, (last, last))
    assert (score.value, answers.remark()) == (
        0.0,
        "every answer is big: no better than always answering nothing, which scores 0.0",
    )
    assert main_score(task, split, (first, first))[0].value == 100.0


def test_the_record_keeps_it_out_of_its_digest_and_old_records_say_nothing(tmp_path):
    old = make_record()
    assert all(stage.answers is None for stage in old.stages)
    assert "answers" not in old.model_dump(mode="json")["stages"][0]
    answers = Answers(rows=9, constant=True, common="a", blind="a", baseline=52.7, low=-1, high=1)
    stages = [stage.model_copy(update={"answers": answers}) for stage in old.stages]
    new = old.model_copy(update={"stages": stages}).sealed()
    assert new.digest == old.digest
    new.save(tmp_path)
    assert Record.load(tmp_path) == new
    assert Stage.model_validate(new.stages[0].model_dump()).answers == answers


def test_an_int8_copy_that_lost_its_answers_is_remarked_on_beside_a_model_that_has_them() -> None:
    blind = {"rows": 40, "common": "no", "blind": "no", "baseline": 50.0}
    sound = Answers(**blind, constant=False, low=20.0, high=40.0)
    lost = Answers(**blind, constant=True, low=0.0, high=0.0)
    int8 = Int8(activations="token", embeddings=False, head=False, scores={}, bytes=1, answers=lost)
    record = make_record()
    record.stages[0] = record.stages[0].model_copy(update={"answers": sound, "int8": int8})
    said = "in int8, every answer is no: no better than always answering no, which scores 50.0"
    assert record.stages[0].remarks() == [said]
    silent = int8.model_copy(update={"answers": None})
    without = record.model_copy(deep=True)
    without.stages[0] = without.stages[0].model_copy(update={"answers": None, "int8": silent})
    assert record.expected_digest() == without.expected_digest()
