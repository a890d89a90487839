"""What labels mean is asked for or said: classes or numbers, which classes and their order, which rows have none."""

import csv
import json
import time

import pytest

from trainflat.core.errors import InputError
from trainflat.recipe import Recipe
from trainflat.tasks import TASKS
from trainflat.tasks.labels import is_number


@pytest.fixture
def build(tmp_path):
    def make(labels, validation=None, suffix=".csv", texts=None, **options):
        for name, values in (("train", labels), ("validation", validation)):
            if values is None:
                continue
            rows = [{"text": f"{name} text {i}", "label": value} for i, value in enumerate(values)]
            for row, text in zip(rows, texts or [], strict=False):
                row["text"] = text
            with (tmp_path / (name + suffix)).open("w", newline="", encoding="utf8") as file:
                if suffix == ".csv":
                    writer = csv.DictWriter(file, ["text", "label"])
                    writer.writeheader()
                    writer.writerows(rows)
                else:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
        if validation is not None:
            options["validation_file"] = f"validation{suffix}"
        return TASKS.build("files", data=tmp_path, seed=0, train_file=f"train{suffix}", **options)

    return make


def classes_of(task, split="train"):
    rows = task.training if split == "train" else task.evaluation[split]
    return [task.head.labels[i] for i in rows.columns["label"]]


# name: (labels, what is asked, options that settle it)
ASKED = {
    "SNLI's rows without a label": (
        [2, 0, 1, -1] * 5,
        "5 of the 20 rows have the label '-1' beside 0, 1, 2",
        {"missing": -1},
    ),
    "kept as a class": ([-1, 0, 1] * 5, "missing: '-1'", {"kind": "classification"}),
    "ignored by torch": ([0, 1, -100] * 5, "'-100' beside 0, 1", {"missing": "-100"}),
    "of a regression": ([0.5, 0.0, -1.0] * 5, "'-1' beside 0.0, 0.5", {"missing": -1}),
    "a word among words": (["yes", "no", "n/a"] * 5, "'n/a' beside no, yes", {"missing": "n/a"}),
    "a question mark": (["yes", "no", "?"] * 5, "missing: '[?]'", {"missing": ["?", ""]}),
    "a word among numbers": (["1", "2", "None"] * 5, "'None' beside 1, 2", {"missing": "None"}),
    "a stance": (["none", "for", "against"] * 5, "'none' beside against, for", {"kind": "classification"}),
    "whole numbers with a point": (
        [0.0, 1.0] * 5,
        "whole numbers with a decimal point .0.0, 1.0.",
        {"kind": "regression"},
    ),
    "stars of pandas": (["1.0", "5.0"] * 5, "1.0, 5.0.*Set kind to", {"kind": "classification"}),
    "decimal commas": (["1,0", "2,5"] * 5, "'1,0' may be a number with a decimal comma", {"kind": "classification"}),
    "no value": (["yes", "", "no"] * 5, "row 2.*missing.*option `missing`", {"missing": ""}),
    "nan": (["yes", "NaN", "no"] * 5, "row 2.*NaN.*option `missing`", {"missing": ""}),
    "capitals": (
        ["Pos", "pos", "neg"] * 5,
        "'Pos' and 'pos', which differ only in capitals",
        {"classes": ["neg", "pos"]},
    ),
    "spaces": (
        ["not  so", "not so", "so"] * 5,
        "'not  so' and 'not so', which differ only",
        {"classes": ["so", "not so"]},
    ),
    "two indeed": (["Pos", "pos", "neg"] * 5, "option `classes`", {"classes": ["Pos", "pos", "neg"]}),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("case", ASKED)
def test_what_may_mean_two_things_is_asked_for(build, case, suffix):
    labels, message, options = ASKED[case]
    with pytest.raises(InputError, match=message) as caught:
        build(labels, suffix=suffix)
    assert "\n" not in str(caught.value)
    build(labels, suffix=suffix, **options)


def test_rows_without_a_label_are_left_out_on_both_sides_and_counted(build):
    task = build([2, 0, 1, -1] * 5, [0, -1, 2], missing=-1)
    assert task.head.labels == ("0", "1", "2")
    assert (len(task.training), len(task.evaluation["validation"])) == (15, 2)
    assert task.notes[:1] == ("train.csv: 5 of 20 rows have no label and are left out.",)
    assert "validation.csv: 1 of 3 rows have no label and are left out." in task.notes
    assert len(build([None, "a", "b"] * 4, suffix=".jsonl", missing="").training) == 6
    with pytest.raises(InputError, match="row 3, column 'label': the label is missing"):
        build(["a", "?", "", "b"], missing="?")  # rows are counted as they stand in the file
    with pytest.raises(InputError, match="none is left"):
        build(["?", "?"], missing="?")


@pytest.mark.parametrize(
    ("labels", "options", "note"),
    [
        ([1, 2, 3, 4, 5] * 4, {}, "labels .1, 2, 3, 4, 5. are taken for classes; set kind to regression"),
        ([0.5, 1.5, 2.0] * 4, {}, "labels .0.5, 1.5, 2.0. are taken for numbers; set kind to classification"),
        (["Pos", "neg"] * 4, {"classes": ["neg", "pos"]}, "labels such as 'Pos' are taken for the class of that name"),
        (["pos", "neg"] * 4, {"classes": ["neg", "pos", "neutral"]}, "no training row is of the class neutral"),
        (["real", "fake"] * 4, {"metric": "f1"}, "f1 is of the class real; set positive to fake for the other"),
        (["a", "b"] * 4 + ["category"], {}, "the class 'category' has a single row: is it a class, or a header"),
        (["a", "b"] * 4 + ["c", "d"], {}, "the class 'c' has a single row, as have 1 other"),
        (["a", "b"] * 4, {"validation": ["a", "a"]}, "all 2 validation rows have the label a, so that a constant"),
        ([0.5, 1.5] * 4, {"validation": [0.5, 0.5]}, "all 2 validation rows have the label 0.5, so that a constant"),
        (["a", "b"] * 4, {"texts": ["1", "2", "3", "4", "5", "6", "7", "8"]}, "the text has no word in any row"),
    ],
)
def test_what_is_taken_for_granted_is_said(build, labels, options, note):
    with pytest.raises(InputError, match=note):
        raise InputError(" ".join(build(labels, **options).notes))


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ([0, 1] * 4, {}),
        (["a", "b"] * 4, {}),
        ([1, 2, 3] * 4, {"kind": "classification"}),
        ([0.5, 1.5] * 4, {"kind": "regression"}),
        ([-1, 1] * 4, {}),
        ([-2, -1, 0, 1, 2] * 4, {"kind": "classification"}),
    ],
)
def test_nothing_is_said_where_nothing_is_taken_for_granted(build, labels, options):
    assert build(labels, **options).notes == ()


def test_classes_are_listed_in_order_whatever_their_capitals(build):
    task = build(["Pos", "neg ", "POS", "Neg"] * 3, ["neg", "pos"], classes=["pos", "neg"])
    assert task.head.labels == ("pos", "neg")
    assert classes_of(task)[:4] == ["pos", "neg", "pos", "neg"]
    assert classes_of(task, "validation") == ["neg", "pos"]
    assert classes_of(build(["pos", "neg"] * 3, ["Neg", "POS"]), "validation") == ["neg", "pos"]


def test_rows_may_number_the_listed_classes(build):
    task = build([0, 2, 1] * 4, ["2", "0"], classes=["sad", "joy", "anger"])
    assert classes_of(task)[:3] == ["sad", "anger", "joy"]
    assert classes_of(task, "validation") == ["anger", "sad"]
    assert classes_of(build([1, 2] * 4, classes=[2, 1]))[:2] == ["1", "2"]  # by name: no class is called 0


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a", "b"] * 4, {"classes": ["a"]}, "classes lists at least two classes, each once, got a"),
        (["a", "b"] * 4, {"classes": ["a", "a"]}, "each once, got a, a"),
        (["a", "b", "c"] * 4, {"classes": ["a", "b"]}, "row 3, .* no label 'c'. Known: a, b"),
        (["a", "b"] * 4, {"validation": [0, 1]}, "no label '0'. Known: a, b. Rows may number them from 0 where the op"),
        (["yes", "no"] * 4, {"classes": [False, True]}, "YAML reads yes, no, on and off as truth values: put quotes"),
        ([0.5, 1.5] * 4, {"classes": [0, 1], "kind": "regression"}, "classes are for classification"),
        (["a", "b"] * 4, {"positive": "c"}, "no class is called 'c'"),
        (["a", "b", "c"] * 4, {"positive": "a"}, "there are 3 classes"),
        ([0.5, 1.5] * 4, {"positive": "a"}, "there are no classes"),
        (["x" * 2000, "b"] * 4, {}, "is no label but a text of 2,000 letters"),
    ],
)
def test_classes_that_do_not_fit_are_one_line(build, labels, options, message):
    with pytest.raises(InputError, match=message):
        build(labels, **options)


def test_f1_is_of_the_positive_class(build):
    """Always answering "real", where ten of twelve rows are."""
    labels = ["fake", *["real"] * 5] * 2
    for positive, f1 in (("real", 200 * 10 / (2 * 10 + 2)), ("Fake", 0.0), (None, 200 * 10 / (2 * 10 + 2))):
        task = build(["fake", "real"] * 4, labels, metric="f1", positive=positive)
        assert task.positive == ("fake" if positive == "Fake" else "real")
        assert task.score_name == f"f1 of {task.positive}"
        assert score_of(task, "real")["f1"] == pytest.approx(f1)
    assert build([0, 1] * 4).positive == "1"
    assert build([0, 1, 2] * 4).positive == ""


def score_of(task, answer, split="validation"):
    """Scores of a model that always gives one answer."""
    from trainflat.tasks.base import EncodedSplit

    rows = [{"labels": label} for label in task.evaluation[split].columns["label"]]
    logits = [[float(name == answer) for name in task.head.labels]] * len(rows)
    return task.score(EncodedSplit(split, rows, [1] * len(rows)), logits)


def test_a_task_in_another_order_scores_the_same(build):
    task = build(["fake", "real"] * 4, ["fake", "real", "real"], metric="f1", positive="fake")
    moved = task.in_order(["REAL", "Fake"])
    assert moved.head.labels == ("REAL", "Fake")
    assert score_of(moved, "Fake") == score_of(task, "fake")
    assert score_of(moved, "REAL") == score_of(task, "real")
    assert moved.fingerprints == task.fingerprints
    assert task.in_order(["real", "other"]) is task


def test_options_that_came_later_do_not_change_the_hash_of_a_recipe():
    task = {"name": "files", "train_file": "x.csv"}
    plain = Recipe(task=task, model="minilm")
    assert "classes" not in plain.resolved()["task"]
    assert Recipe(task=task | {"classes": None}, model="minilm").hash == plain.hash
    listed = Recipe(task=task | {"classes": ["a", 1, True], "positive": False}, model="minilm")
    assert listed.resolved()["task"]["classes"] == ["a", 1, True]
    assert listed.resolved()["task"]["positive"] is False


def test_reading_a_label_takes_no_longer_than_its_length():
    started = time.perf_counter()
    assert not is_number("1" * 300_000 + "x")
    assert time.perf_counter() - started < 1  # quadratic: minutes
