"""Where official data comes from, and what is said when it is not there or not right."""

import gzip
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from trainflat.core.errors import InputError
from trainflat.tasks import TASKS, sources

ROWS = {"sentence": ["One two.", "Three four.", "Five."], "label": [0, 1, 1], "idx": [0, 1, 2]}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)


def put(folder, columns=ROWS, splits=("train", "validation")):
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def build(data, name="cola", **options):
    return TASKS.build(name, data=data, seed=0, **options)


def line(*args, **options):
    with pytest.raises(InputError) as caught:
        build(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("below", ["glue/cola", "cola", "."])
def test_the_folder_may_be_the_data_set_or_hold_it(tmp_path, below):
    put(tmp_path / below)
    task = build(tmp_path)
    assert task.training.columns["text"] == ROWS["sentence"]
    assert task.fingerprints["train"].source == "file:train.parquet"


def test_the_option_goes_before_the_variable(tmp_path, monkeypatch):
    put(tmp_path / "one")
    put(tmp_path / "two", {**ROWS, "label": [1, 1, 0]})
    monkeypatch.setenv("TRAINFLAT_DATA", str(tmp_path / "two"))
    assert build(tmp_path / "one").training.columns["label"] == [0, 1, 1]
    assert build(None).training.columns["label"] == [1, 1, 0]


def test_the_parts_of_a_split_are_read_in_order(tmp_path):
    folder = put(tmp_path, splits=["validation"])
    for k in range(2):
        part = {key: values[2 * k : 2 * k + 2] for key, values in ROWS.items()}
        pq.write_table(pa.table(part), folder / f"train-0000{k}-of-00002.parquet")
    task = build(tmp_path)
    assert task.training.columns["text"] == ROWS["sentence"]
    assert task.fingerprints["train"].source == "file:train"


def test_packed_files_are_splits_too(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(b"sentence,label\nOne two.,0\nThree.,1\n"))
    task = build(tmp_path)
    assert task.training.columns["text"] == ["One two.", "Three."]
    assert task.fingerprints["train"].source == "file:train.csv.gz"
    (tmp_path / "train.ndjson").write_text('{"sentence": "One", "label": 0}\n', encoding="utf8")
    assert "has the split train more than once (train.csv.gz, train.ndjson)" in line(tmp_path)


def test_class_names_and_strings_are_labels_too(tmp_path):
    put(tmp_path, {**ROWS, "label": ["unacceptable", "acceptable", "1"]})
    assert build(tmp_path).training.columns["label"] == [0, 1, 1]


def test_partial_splits_are_named_but_never_taken(tmp_path):
    put(tmp_path, splits=["train_partial", "validation"])
    message = line(tmp_path)
    assert "no split 'train' of cola" in message
    assert "`train: train_partial`" in message
    assert "cannot be compared with published ones" in message
    task = build(tmp_path, train="train_partial")
    assert task.fingerprints["train"].partial
    assert task.fingerprints["train"].source == "file:train_partial.parquet"


def test_a_partial_validation_split_is_named_with_its_option(tmp_path):
    put(tmp_path, splits=["train", "validation_partial"])
    assert "`evaluate: validation_partial`" in line(tmp_path)


def test_two_splits_are_joined(tmp_path):
    put(tmp_path, splits=["train_partial", "train_partial_extra", "validation"])
    task = build(tmp_path, train="train_partial+train_partial_extra")
    assert task.training.columns["text"] == ROWS["sentence"] * 2


def test_a_whole_split_is_not_marked_and_a_file_that_lacks_rows_is(tmp_path):
    put(tmp_path, {"sentence": ["a"] * 1043, "label": [0, 1] * 521 + [0]}, splits=["validation"])
    put(tmp_path, splits=["train"])
    fingerprints = build(tmp_path).fingerprints
    assert not fingerprints["validation"].partial
    assert fingerprints["train"].partial


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"label": [-1, -1, -1]}, ["has no labels", "test splits"]),
        ({"label": [0, 1, -1]}, ["row 3", "-1 is out of range", "0 unacceptable, 1 acceptable"]),
        ({"label": [0, 2, 1]}, ["row 2, column 'label'", "2 is out of range"]),
        ({"label": [0.0, 0.5, 1.0]}, ["row 2", "0.5 is out of range"]),
        ({"label": [0, None, 1]}, ["row 2", "missing"]),
        ({"label": [0.0, float("nan"), 1.0]}, ["row 2", "nan"]),
        ({"label": ["0", "x", "1"]}, ["row 2", "'x' is out of range"]),
        ({"sentence": ["a", None, "b"]}, ["row 2, column 'sentence'", "missing"]),
        ({"sentence": [1, 2, 3]}, ["row 1, column 'sentence'", "1 is not a text"]),
    ],
)
def test_bad_rows_are_named(tmp_path, change, parts):
    put(tmp_path, {**ROWS, **change})
    message = line(tmp_path)
    assert all(part in message for part in ["train.parquet", *parts]), message


def test_a_missing_column_is_named(tmp_path):
    put(tmp_path, {"sentences": ROWS["sentence"], "label": ROWS["label"]})
    assert "no column is called 'sentence'. Did you mean 'sentences'" in line(tmp_path)


@pytest.mark.parametrize(("labels", "part"), [([1.0, 5.5, 2.0], "row 2"), ([1.0, 2.0, -0.5], "row 3")])
def test_similarities_out_of_range_are_named(tmp_path, labels, part):
    put(tmp_path, {"sentence1": ["a"] * 3, "sentence2": ["b"] * 3, "label": labels})
    message = line(tmp_path, "stsb")
    assert part in message
    assert "from 0 to 5" in message


def test_float32_similarities_are_those_of_a_text_file(tmp_path):
    pairs = {"sentence1": ["a"] * 2, "sentence2": ["b"] * 2}
    put(tmp_path / "one", {**pairs, "label": pa.array([3.6, 0.2], pa.float32())})
    put(tmp_path / "two", {**pairs, "label": ["3.6", "0.2"]})
    hashes = {build(tmp_path / name, "stsb").fingerprints["train"].sha256 for name in ("one", "two")}
    assert len(hashes) == 1


def test_a_folder_without_the_task_is_named(tmp_path):
    put(tmp_path / "glue" / "rte")
    message = line(tmp_path)
    assert str(tmp_path) in message
    assert "glue/cola/" in message


def test_a_folder_that_is_none_is_named_with_where_it_was_given(tmp_path, monkeypatch):
    assert line(tmp_path / "nothing").startswith(f"--data names {tmp_path / 'nothing'}, which is not a folder")
    monkeypatch.setenv("TRAINFLAT_DATA", str(tmp_path / "nothing"))
    assert line(None).startswith("TRAINFLAT_DATA names")


def test_a_folder_whose_name_no_folder_can_have_is_one_line():
    message = line(Path("a" * 5000))
    assert "cannot be read: File name too long. Check the folder of --data." in message
    assert len(message) < 300


def test_a_split_in_two_formats_is_refused(tmp_path):
    put(tmp_path)
    (tmp_path / "train.csv").write_text("sentence,label\na,0\n", encoding="utf8")
    assert "has the split train more than once (train.csv, train.parquet)" in line(tmp_path)


def hub(monkeypatch, load, answers=True):
    monkeypatch.setattr(sources, "hub_answers", lambda: answers)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_without_a_folder_the_hub_is_asked(monkeypatch):
    asked = []

    def load(*args, **options):
        asked.append((*args, options))
        return SimpleNamespace(to_dict=lambda: ROWS)

    hub(monkeypatch, load)
    task = build(None)
    assert asked == [("nyu-mll/glue", "cola", {"split": split}) for split in ("train", "validation")]
    assert task.fingerprints["train"].source == "hub:nyu-mll/glue/cola"


def test_rows_from_the_hub_and_from_a_file_have_one_fingerprint(monkeypatch, tmp_path):
    hub(monkeypatch, lambda *_, **__: SimpleNamespace(to_dict=lambda: ROWS))
    assert build(None).fingerprints["train"].sha256 == build(put(tmp_path)).fingerprints["train"].sha256


@pytest.mark.parametrize(
    "error",
    [ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub\nmore"), ValueError("Unknown split"), OSError("no")],
)
def test_a_hub_that_does_not_answer_becomes_one_line(monkeypatch, error):
    def load(*_, **__):
        raise error

    hub(monkeypatch, load)
    message = line(None)
    assert message.startswith("cola (train) cannot be fetched from the hub: ")
    assert message.endswith("Give a folder with --data DIR.")


@pytest.mark.usefixtures("silent_hub")
def test_a_silent_hub_is_told_within_seconds():
    pytest.importorskip("datasets")
    started = time.monotonic()
    message = line(None)
    assert "cola (train) cannot be fetched from the hub: the hub (http://127.0.0.1" in message
    assert "does not answer; from its cache: " in message
    assert time.monotonic() - started < 10  # its own client tries again for half a minute


def test_a_silent_hub_is_not_asked_for_what_its_cache_holds(monkeypatch):
    offline = []

    def load(*_, **__):
        offline.append(constants.is_offline_mode())
        return SimpleNamespace(to_dict=lambda: ROWS)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub(monkeypatch, load, answers=False)
    build(None)
    hub(monkeypatch, load)
    build(None)
    assert offline == [True, True, False, False]
    assert not constants.is_offline_mode()


def test_without_the_package_the_folder_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = line(None)
    assert "`datasets` is not installed" in message
    assert "--data DIR" in message


OFFICIAL = {
    "cola": (8551, 1043),
    "mrpc": (3668, 408),
    "rte": (2490, 277),
    "stsb": (5749, 1500),
    "sst2": (67349, 872),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_real_glue_is_whole(shared_data, name):
    fingerprints = build(shared_data, name).fingerprints
    assert (fingerprints["train"].rows, fingerprints["validation"].rows) == OFFICIAL[name]
    assert not any(f.partial for f in fingerprints.values())


@pytest.mark.parametrize(
    ("name", "evaluate", "rows"),
    [
        ("qnli", ["validation"], {"train": 12259, "validation": 5463}),
        ("qqp", ["validation_partial"], {"train": 25370, "validation_partial": 7600}),
        (
            "mnli",
            ["validation_matched", "validation_mismatched_partial"],
            {"train": 22849, "validation_matched": 9815, "validation_mismatched_partial": 1000},
        ),
    ],
)
def test_real_partial_splits(shared_data, name, evaluate, rows):
    assert "`train: train_partial`; such scores" in line(shared_data, name)
    task = build(shared_data, name, train="train_partial", evaluate=evaluate)
    assert {split: f.rows for split, f in task.fingerprints.items()} == rows
    assert task.split == evaluate[0]
    partial = {split for split, f in task.fingerprints.items() if f.partial}
    assert partial == {"train"} | {split for split in evaluate if split.endswith("_partial")}
