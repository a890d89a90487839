"""A user's own files: what is inferred, and what is refused and how."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflat.core.errors import InputError
from trainflat.tasks import TASKS


@pytest.fixture
def build(tmp_path):
    """Writes the labels (and more columns) as a file and makes the task."""

    def make(labels, suffix=".csv", validation=None, columns=None, **options):
        for name, values in (("train", labels), ("validation", validation)):
            if values is not None:
                rows = {"text": [f"{name} text {i}" for i in range(len(values))], "label": values, **(columns or {})}
                write(tmp_path / f"{name}{suffix}", rows)
        if validation is not None:
            options["validation_file"] = f"validation{suffix}"
        return TASKS.build("files", data=tmp_path, seed=0, train_file=f"train{suffix}", **options)

    return make


def write(path, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    else:
        with path.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, list(columns), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["spam", "ham"] * 10, "classification", ("ham", "spam")),
        ([3, -1, 12] * 10, "classification", ("-1", "3", "12")),
        ([0.5, 2.25, 3.0] * 10, "regression", ()),
    ],
)
def test_the_kind_is_inferred_alike_in_all_formats(build, suffix, labels, kind, names):
    task = build(labels, suffix)
    assert task.head.kind == kind
    assert task.head.labels == names
    assert task.metric == ("accuracy" if kind == "classification" else "pearson")


def test_all_formats_have_one_fingerprint(build):
    hashes = {build([4, 7] * 10, suffix).fingerprints["train"].sha256 for suffix in SUFFIXES}
    assert len(hashes) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "labels",
    [
        ["007", "013"],
        ["007", "013", "120"],  # one leading zero shows what the others are
        ["00", "7"],
        ["01.11", "10.20", "01.1"],  # of industries
        ["+0", "+1"],
        ["+1", "-1"],
        ["+1", "0", "-1"],
        ["3E1", "3E2", "10"],
    ],
    ids=" ".join,
)
def test_codes_are_classes_as_they_are_written(build, suffix, labels):
    task = build(labels * 5, suffix, validation=labels[:1])
    assert task.head.kind == "classification"
    assert task.head.labels == tuple(sorted(labels))
    names = [task.head.labels[i] for i in task.evaluation["validation"].columns["label"]]
    assert names == labels[:1]


@pytest.mark.parametrize(
    "labels", [["0.5", "+1", "-1"], ["1e-05", "2e-05"], ["1.0", "2.5"], [".5", "1e5"], ["+0.5", "-0.5"]], ids=" ".join
)
def test_decimal_points_and_printed_exponents_are_numbers(build, labels):
    task = build(labels * 5)
    assert task.head.kind == "regression"
    assert task.training.columns["label"][0] in map(float, labels)


def test_codes_with_leading_zeros_may_be_many_and_other_codes_are_asked_for(build):
    padded = [f"{i:03}" for i in range(50)] * 2
    assert len(build(padded).head.labels) == 50
    signed = [f"{i:+}" for i in range(1, 51)] * 2
    assert "50 different labels like '+1'" in line(build, signed)
    assert build(signed, kind="regression").training.columns["label"][:3] == [1.0, 2.0, 3.0]
    assert len(build(signed, kind="classification").head.labels) == 50


def test_a_padded_code_is_not_the_number(build):
    assert "no label '7'. Did you mean '007'?" in line(build, ["007", "013"] * 5, validation=["7"])


def test_numbers_that_are_written_differently_and_equal_do_not_make_a_regression(build):
    assert "holds only 1.0" in line(build, ["01", "+1", "1"] * 5, kind="regression")


def test_truth_values_are_classes(build):
    assert build([True, False] * 10, ".jsonl").head.labels == ("False", "True")


def test_integers_that_do_not_start_at_0_are_mapped_in_order(build):
    task = build([12, 3, 7, 3] * 10, validation=[7, 12])
    assert task.training.columns["label"][:4] == [2, 0, 1, 0]
    assert task.evaluation["validation"].columns["label"] == [1, 2]


def test_the_same_class_may_be_written_as_another_type(build, tmp_path):
    build([1, 2] * 10, ".jsonl", validation=[1, 2])
    write(tmp_path / "validation.jsonl", {"text": ["a", "b", "c"], "label": [1.0, 2.0, 1.0]})
    task = TASKS.build("files", data=tmp_path, seed=0, train_file="train.jsonl", validation_file="validation.jsonl")
    assert task.evaluation["validation"].columns["label"] == [0, 1, 0]


def test_without_a_validation_file_a_tenth_is_held_out(build):
    task = build(["a", "b"] * 50)
    assert task.split == "holdout"
    assert {name: f.rows for name, f in task.fingerprints.items()} == {"train": 90, "holdout": 10}
    assert not any(f.partial for f in task.fingerprints.values())


def test_a_class_that_only_the_held_out_rows_have_is_known(build):
    labels = ["common"] * 99 + ["rare"]
    for seed in range(30):
        assert build(labels, **({"rows": 5} if seed % 2 else {})).head.labels == ("common", "rare")


def test_two_columns_of_text(build, minilm_tokenizer):
    task = build(["a", "b"] * 5, columns={"second": ["short"] * 10}, text=["text", "second"], holdout=0.5)
    one = build(["a", "b"] * 5, holdout=0.5).encode(minilm_tokenizer, 32)[0]
    two = task.encode(minilm_tokenizer, 32)[0]
    assert [n + 2 for n in one.lengths] == list(two.lengths)  # the word and another separator
    assert max(two.rows[0]["token_type_ids"]) == 1


@pytest.mark.parametrize(("suffix", "blank"), [(".csv", ""), (".csv", " "), (".jsonl", None)])
def test_rows_that_a_spreadsheet_left_empty_at_the_end_are_dropped(build, suffix, blank):
    texts = {"text": [*"vwxyz"[:4], blank, blank], "more": ["", *"bcd", blank, blank]}
    task = build(["a", "b"] * 2 + [blank] * 2, suffix, columns=texts, holdout=0.5)
    assert sum(fingerprint.rows for fingerprint in task.fingerprints.values()) == 4
    assert f"train{suffix}: the last 2 of 6 rows are empty and left out." in task.notes
    texts = {"text": ["v", blank, "x", "y"]}  # in the middle, an empty row is probably a mistake
    assert "row 2" in line(build, ["a", blank, "a", "b"], suffix, columns=texts)


@pytest.mark.parametrize("metric", ["f1", "matthews", "accuracy"])
def test_the_metric_is_chosen(build, metric):
    task = build(["a", "b"] * 10, metric=metric)
    assert task.metric == metric
    assert task.metrics[0] == metric


def test_files_lie_below_the_data_folder_or_anywhere(build, tmp_path, monkeypatch):
    expected = build(["a", "b"] * 10).fingerprints
    assert TASKS.build("files", data=None, seed=0, train_file=str(tmp_path / "train.csv")).fingerprints == expected
    monkeypatch.chdir(tmp_path)
    assert TASKS.build("files", data=None, seed=0, train_file="train.csv").fingerprints == expected


def line(build, *args, **options):
    with pytest.raises(InputError) as caught:
        build(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


AB = ["a", "b"] * 5


@pytest.mark.parametrize(
    ("labels", "suffix", "options", "parts"),
    [
        (["a", "", "b"], ".csv", {}, ["train.csv", "row 2", "column 'label'", "missing"]),
        (["a", None, "b"], ".jsonl", {}, ["row 2", "column 'label'", "missing"]),
        ([0.5, float("nan"), 1.5], ".parquet", {}, ["train.parquet", "row 2", "nan"]),
        ([0.5, float("nan"), 1.5], ".jsonl", {}, ["row 2", "nan"]),
        ([0.5, "nan", 1.5], ".csv", {}, ["row 2", "NaN"]),
        ([0.5, float("inf")], ".parquet", {}, ["row 2", "inf"]),
        (["a", "a"], ".csv", {}, ["holds only 'a'"]),
        ([2.0, 2.0], ".parquet", {}, ["holds only 2.0"]),
        ([1, "b", 1], ".jsonl", {}, ["row 2", "'b'", "type"]),
        ([["a"], ["b"]], ".jsonl", {}, ["row 1", "is no label"]),
        (list(range(30)) * 2, ".csv", {}, ["30 different integers", "Set kind"]),
        (
            ["1.5", "2.5", "n/a", "3.5"],
            ".csv",
            {},
            ["1 of the 4 rows", "'n/a'", "beside 1.5, 2.5, 3.5", "missing: 'n/a'"],
        ),
        (["1" * 400, "2"], ".csv", {}, ["train.csv: row 1, column 'label'", "more than 300 digits"]),
        (["2", "-" + "1" * 5000], ".csv", {}, ["row 2", "more than 300 digits"]),
        (["2", "0" * 5000], ".parquet", {"kind": "regression"}, ["row 2", "more than 300 digits"]),
        ([0.5, 10**400], ".jsonl", {}, ["train.jsonl: line 2", "too large"]),
        ([2, -(10**400)], ".jsonl", {"kind": "regression"}, ["line 2", "too large"]),
        (["1.5", "x"], ".csv", {"kind": "regression"}, ["row 2", "'x' is not a number"]),
        (["u1", "u2", "u3"], ".csv", {}, ["another class in each of its 3 rows"]),
        (AB, ".csv", {"validation": ["a", "c"]}, ["validation.csv", "row 2", "no label 'c'", "Known: a, b"]),
        (["good", "bad"] * 5, ".csv", {"validation": ["goood"]}, ["Did you mean 'good'"]),
        ([1, 2] * 5, ".csv", {"validation": ["1", "x"]}, ["validation.csv: row 2", "no label 'x'"]),
        ([1.5, 2.5] * 5, ".csv", {"validation": ["1", "x"]}, ["validation.csv: row 2", "'x' is not a number"]),
        (AB, ".csv", {"text": "txt"}, ["train.csv", "no column is called 'txt'", "Did you mean 'text'"]),
        (AB, ".csv", {"label": "labels"}, ["no column is called 'labels'", "Did you mean 'label'"]),
        (AB, ".csv", {"text": ["text", "text_b"]}, ["no column is called 'text_b'"]),
        (AB, ".csv", {"text": []}, ["got 0 columns"]),
        (AB, ".csv", {"text": ["text"] * 3}, ["got 3 columns"]),
        (AB, ".csv", {"text": ["text", "text"]}, ["text names the column 'text' twice"]),
        (AB, ".csv", {"text": "label"}, ["text and label are both the column 'label'"]),
        (AB, ".csv", {"text": ["text", "label"]}, ["text and label are both the column 'label'"]),
        (AB, ".csv", {"validation_file": ""}, ["validation_file is '', which names no file"]),
        (AB, ".csv", {"validation_file": "a" * 5000}, ["cannot be read: File name too long"]),
        (AB, ".csv", {"validation_file": "~nobody-at-all/x.csv"}, ["~nobody-at-all/x.csv", "no such user"]),
        (AB, ".csv", {"metric": "acuracy"}, ["no metric is called 'acuracy'", "Did you mean 'accuracy'"]),
        (AB, ".csv", {"metric": "pearson"}, ["pearson does not fit classification", "accuracy"]),
        (AB, ".csv", {"kind": "clasification"}, ["Did you mean 'classification'"]),
        (AB, ".csv", {"columns": {"text": ["x"] * 9 + [""]}}, ["row 10, column 'text': the text is empty"]),
        (AB, ".jsonl", {"columns": {"text": ["x"] * 9 + [7]}}, ["row 10, column 'text': 7 is not a text"]),
        (AB, ".parquet", {"columns": {"text": ["x"] * 9 + [None]}}, ["row 10, column 'text'", "missing"]),
        (AB, ".parquet", {"columns": {"text": list(range(10))}}, ["row 1, column 'text': 0 is not a text"]),
        (AB, ".csv", {"validation_file": "vali.csv"}, ["there is no file", "vali.csv"]),
    ],
)
def test_bad_rows_get_one_line_with_file_row_and_column(build, labels, suffix, options, parts):
    message = line(build, labels, suffix, **options)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("options", [{}, {"holdout": 0.2}, {"rows": 5}], ids=["plain", "holdout", "rows"])
def test_the_file_that_is_trained_on_is_not_scored(build, tmp_path, options):
    build(AB)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "train.csv")
    for name in ("train.csv", "folder/../train.csv", str(tmp_path / "train.csv"), "link.csv"):
        message = line(build, AB, validation_file=name, **options)
        assert f"train_file {tmp_path / 'train.csv'} and validation_file" in message
        assert name in message
        assert "are one file" in message


def test_a_copy_of_the_training_file_is_not_scored(build, tmp_path):
    build(AB)
    (tmp_path / "copy.csv").write_bytes((tmp_path / "train.csv").read_bytes())
    message = line(build, AB, validation_file="copy.csv")
    assert all(part in message for part in ("train.csv", "copy.csv", "hold the same rows")), message


def test_a_training_file_whose_name_no_file_can_have_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        TASKS.build("files", data=tmp_path, seed=0, train_file="a" * 5000)


def test_a_missing_training_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing\.csv"):
        TASKS.build("files", data=tmp_path, seed=0, train_file="nothing.csv")
