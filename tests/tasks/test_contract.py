"""Every task of the table, on tiny made data: what the other parts rely on."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainflat.core.errors import InputError, TrainingDiverged, UnknownName
from trainflat.records.run import Fingerprint
from trainflat.tasks import TASKS
from trainflat.tasks.glue import Glue

OFFICIAL = [name for name in TASKS if name not in ("files", "stdlib-docs")]
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew potions".split()  # noqa: SIM905


def sentence(i: int) -> str:
    return " ".join(WORDS[(i * 5 + j * 3) % len(WORDS)] for j in range(3 + i % 7))


def glue_rows(task: type[Glue], count: int) -> list[dict]:
    classes = len(task.spec.labels)
    labels = [i % classes if classes else i % 6 * 0.9 for i in range(count)]
    return [{c: sentence(i + k) for k, c in enumerate(task.spec.texts)} | {"label": labels[i]} for i in range(count)]


def squad_rows(count: int) -> list[dict]:
    rows = []
    for i in range(count):
        context = ". ".join(sentence(i + j) for j in range(12)) + "."
        answer = [word for word in WORDS if len(word) > 4 and word in context][i % 3]
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"id": str(i), "question": f"Which {sentence(i)}?", "context": context, "answers": answers})
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A --data folder that holds a tiny version of every task."""
    root = tmp_path_factory.mktemp("data")
    for name in OFFICIAL:
        splits = ["train", "validation"]
        if name == "mnli":
            splits = ["train", "validation_matched", "validation_mismatched"]
        for k, split in enumerate(splits):
            rows = squad_rows(40 - 10 * k) if name == "squad" else glue_rows(TASKS[name], 40 - 10 * k)
            folder = root / name if name == "squad" else root / "glue" / name
            write_jsonl(folder / f"{split}.jsonl", rows)
    write_jsonl(root / "own.jsonl", [{"text": sentence(i), "label": "odd" if i % 2 else "even"} for i in range(40)])
    return root


@pytest.fixture(params=list(TASKS))
def name(request):
    return request.param


@pytest.fixture
def build(made, name):
    """Makes the task of this test with options."""
    given = {"train_file": "own.jsonl"} if name == "files" else {"doc_stride": 8} if name == "squad" else {}
    return lambda seed=0, **options: TASKS.build(name, data=made, seed=seed, **given, **options)


def oracle(split, task):
    """Predictions that are right."""
    if task.head.kind == "spans":
        logits = [np.zeros((len(split), max(split.lengths))) for _ in range(2)]
        for i, row in enumerate(split.rows):
            logits[0][i, row["start_positions"]] = logits[1][i, row["end_positions"]] = 9
        return tuple(logits)
    labels = np.array([row["labels"] for row in split.rows])
    return labels if task.head.kind == "regression" else np.eye(len(task.head.labels))[labels]


def test_declares_what_the_model_and_the_record_need(build, name):
    task = build()
    assert task.name == name
    assert TASKS.summary(name).endswith(".")
    assert task.head.kind in ("classification", "regression", "spans")
    assert (len(task.head.labels) >= 2) == (task.head.kind == "classification")
    assert task.split in task.fingerprints
    assert "train" in task.fingerprints
    assert all(isinstance(f, Fingerprint) and f.rows > 0 and len(f.sha256) == 64 for f in task.fingerprints.values())
    assert not any("/" in f.source for f in task.fingerprints.values() if f.source.startswith("file:"))


def test_encodes_what_the_model_reads(build, minilm_tokenizer):
    task = build(rows=20)
    train, evaluation = task.encode(minilm_tokenizer, 48)
    assert train.name == "train"
    assert set(evaluation) == set(task.fingerprints) - {"train"}
    targets = {"start_positions", "end_positions"} if task.head.kind == "spans" else {"labels"}
    for split in (train, *evaluation.values()):
        assert len(split) == len(split.rows) == len(split.lengths) > 0
        assert max(split.lengths) <= 48
        for row, length in zip(split.rows, split.lengths, strict=True):
            assert set(row) == targets | set(minilm_tokenizer.model_input_names)
            assert len(row["input_ids"]) == len(row["attention_mask"]) == length
            assert all(isinstance(row[key], float if task.head.kind == "regression" else int) for key in targets)
    assert all(list(split.lengths) == sorted(split.lengths) for split in evaluation.values())


def test_right_predictions_score_100(build, minilm_tokenizer):
    task = build()
    for split in task.encode(minilm_tokenizer, 48)[1].values():
        scores = task.score(split, oracle(split, task))
        assert task.metric in scores
        assert scores == pytest.approx(dict.fromkeys(scores, 100.0))


def test_constant_predictions_have_a_score_and_nan_stops_the_run(build, minilm_tokenizer):
    task = build()
    split = task.encode(minilm_tokenizer, 48)[1][task.split]
    right = oracle(split, task)
    spans = task.head.kind == "spans"
    constant = tuple(np.zeros_like(part) for part in right) if spans else np.zeros_like(right)
    scores = task.score(split, constant)
    assert all(np.isfinite(value) and -100 <= value <= 100 for value in scores.values())
    with pytest.raises(TrainingDiverged, match="not numbers"):
        task.score(split, tuple(part * np.nan for part in right) if spans else right * np.nan)


def test_predictions_of_another_split_are_refused(build, minilm_tokenizer):
    task = build()
    split = task.encode(minilm_tokenizer, 48)[1][task.split]
    right = oracle(split, task)
    with pytest.raises(ValueError, match="got"):
        task.score(split, tuple(part[1:] for part in right) if task.head.kind == "spans" else right[1:])


def test_the_same_call_gives_the_same_rows(build, minilm_tokenizer):
    one, two = build(rows=15, holdout=0.2), build(rows=15, holdout=0.2)
    assert one.fingerprints == two.fingerprints
    assert one.encode(minilm_tokenizer, 48)[0].rows == two.encode(minilm_tokenizer, 48)[0].rows
    assert build(seed=1, rows=15).fingerprints["train"] != one.fingerprints["train"]


def test_holdout_leaves_the_validation_split_alone(build):
    task = build(holdout=0.25)
    assert task.split == "holdout"
    assert set(task.fingerprints) == {"train", "holdout"}
    assert all(fingerprint.partial for fingerprint in task.fingerprints.values())


def test_too_long_and_too_short_are_refused(build, minilm_tokenizer):
    task = build()
    with pytest.raises(InputError, match="max_length is 513, but this model takes at most 512"):
        task.encode(minilm_tokenizer, 513)
    with pytest.raises(InputError, match="no room for text"):
        task.encode(minilm_tokenizer, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows is how many"),
        ({"rows": 10**7}, "got 10000000"),
        ({"holdout": 1.0}, "in .0, 1"),
        ({"holdout": -0.1}, "in .0, 1"),
        ({"holdout": 1e-5}, "leaves one part empty"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_an_option_that_does_not_exist_names_the_nearest(build):
    with pytest.raises(UnknownName, match="Did you mean 'holdout'"):
        build(hold_out=0.1)


@pytest.mark.parametrize("name", OFFICIAL)
def test_only_some_rows_of_an_official_split_are_marked(build):
    assert all(fingerprint.partial for fingerprint in build().fingerprints.values())


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_training_split_is_not_evaluated(build):
    with pytest.raises(InputError, match="which is trained on"):
        build(evaluate=["train"])
    with pytest.raises(InputError, match="names no split"):
        build(evaluate=[])
    with pytest.raises(InputError, match="evaluate names 'validation', which is trained on"):
        build(train="train+validation", evaluate=["validation"])


@pytest.mark.parametrize("name", OFFICIAL)
def test_no_row_is_held_out_and_trained_on(build):
    for train in ("train+train", "train+train_partial"):
        with pytest.raises(InputError, match="names rows of 'train' twice"):
            build(train=train, holdout=0.1)
    with pytest.raises(InputError, match="names rows of 'validation' twice"):
        build(evaluate=["validation", "validation"])
