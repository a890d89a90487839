"""Suites are read from JSON lines, or refused in one line; cases are drawn by a seed, and put to models."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForQuestionAnswering, BertForSequenceClassification

from tests.support.families import WORDS, config, tokenizer
from trainflat.core.errors import DamagedFile, InputError, UnknownName
from trainflat.evaluation import predictions_of
from trainflat.evaluation.checklist import (
    EXPECTATIONS,
    SUITES,
    Case,
    Questions,
    Suite,
    check_task,
    read_suite,
    with_neutral,
)
from trainflat.tasks import TASKS
from trainflat.tasks.base import Task

CASE = {"test": "t", "capability": "C", "type": "MFT", "expect": "label", "examples": ["a"], "labels": [2]}
PAIR = CASE | {"examples": [["a", "b"]], "labels": [1]}
READ = CASE | {"expect": "text", "examples": [["a flat minimum", "its loss"]], "labels": ["a"]}


def written(folder: Path, *cases: dict[str, Any], **header: Any) -> str:
    """A suite's file."""
    body = "".join(json.dumps(case) + "\n" for case in cases)
    path = folder / "suite.jsonl"
    path.write_text(json.dumps({"format": 1, "name": "own", "kind": "sentiment"} | header) + "\n" + body)
    return str(path)


def test_a_suite_of_ones_own_needs_no_hash(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, CASE, CASE | {"test": "u", "examples": ["b"]}))
    assert (suite.name, suite.kind, [case.test for case in suite.cases]) == ("own", "sentiment", ["t", "u"])
    assert (
        suite.sha256
        == hashlib.sha256(b"".join(Path(tmp_path / "suite.jsonl").read_bytes().partition(b"\n")[2:])).hexdigest()
    )


def test_texts_may_hold_any_character(tmp_path: Path) -> None:
    odd = "".join(chr(code) for code in range(0x20, 0x2100)) + "\u2028\u2029\U0001f600"
    path = Path(written(tmp_path))
    line = json.dumps(CASE | {"examples": [odd]}, ensure_ascii=False)
    path.write_text(f"{path.read_text()}{line}\r\n", encoding="utf8", newline="")
    assert read_suite(str(path)).cases[0].examples == [odd]


@pytest.mark.parametrize(
    ("cases", "header", "why"),
    [
        ([CASE], {"sha256": "0" * 64}, "was changed after it was written"),
        ([CASE], {"cases": 2}, "has 1 cases, and its first line says 2"),
        ([CASE], {"kind": "sentimental"}, "the first line of suite"),
        ([CASE], {"format": 2}, "format"),
        ([CASE], {"unknown": 1}, "unknown"),
        ([CASE | {"expect": "wonder"}], {}, "expect 'wonder' is none of label, text"),
        ([CASE | {"labels": None}], {}, "a case that expects 'label' has labels"),
        ([CASE | {"labels": [2, 2]}], {}, "one label"),
        ([CASE | {"labels": [3]}], {}, "labels of kind sentiment are 0, 1, 2"),
        ([CASE | {"labels": ["positive"]}], {}, "labels of kind sentiment are 0, 1, 2"),
        ([CASE | {"examples": []}], {}, "0.examples"),
        ([PAIR], {}, "examples of kind sentiment are single texts"),
        ([CASE], {"kind": "paraphrase"}, "examples of kind paraphrase are pairs"),
        ([READ | {"expect": "not-negative", "labels": None}], {"kind": "reading"}, "is about classes"),
        ([PAIR | {"expect": "implied"}], {"kind": "paraphrase"}, "has 3 examples"),
        ([CASE, CASE | {"type": "INV"}], {}, "two capabilities or types"),
        ([], {}, "has no cases"),
    ],
)
def test_what_is_wrong_with_a_suite_is_one_line(cases: Any, header: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_suite(written(tmp_path, *cases, **header))
    assert why in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("docs/behaviour.md has the format.")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"evaluation.checklist.suite: no suite is called 'mini'.*mini-sentiment"):
        read_suite("mini")
    with pytest.raises(InputError, match=r"there is no file .*absent.jsonl"):
        read_suite(str(tmp_path / "absent.jsonl"))
    path = tmp_path / "suite.pkl"
    for content in (b"\x80\x04K\x01.", b"", b'{"format": 1', b"[]\n[]"):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"suite"):
            read_suite(str(path))


def test_the_packaged_suite() -> None:
    suite = read_suite("mini-sentiment")
    assert list(SUITES) == ["mini-sentiment"] and suite.kind == "sentiment"
    assert len(suite.cases) == 74 and len({case.test for case in suite.cases}) == 12
    assert {case.type for case in suite.cases} == {"MFT", "INV", "DIR"}
    assert len({case.capability for case in suite.cases}) == 6
    assert all(len(set(case.examples)) == len(case.examples) for case in suite.cases)


def test_cases_are_drawn_once_by_the_seed_whatever_other_tests_there_are() -> None:
    def case(test: str, place: int) -> Case:
        return Case.model_validate(CASE | {"test": test, "examples": [f"{test} {place}"]})

    many = [case("a", i) for i in range(40)]
    others = [case("b", i) for i in range(3)]
    alone = Suite(name="s", kind="sentiment", sha256="", cases=many)
    both = Suite(name="s", kind="sentiment", sha256="", cases=[*others, *many])
    drawn = alone.sample(10, 0)
    assert len({one.examples[0] for one in drawn}) == 10
    assert [many.index(one) for one in drawn] == sorted(many.index(one) for one in drawn)
    assert both.sample(10, 0) == [*others, *drawn]
    assert alone.sample(10, 1) != drawn
    assert alone.sample(100, 0) == many


def files(folder: Path, labels: tuple[str, ...], *, pair: bool = False, **options: Any) -> Task:
    """A task of a user's own file."""
    rows = [{"x": f"{w} flat", "y": w, "label": labels[i % len(labels)]} for i, w in enumerate(WORDS * 2)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = ["x", "y"] if pair else "x"
    section = {"name": "files", "train_file": str(path), "text": text, "label": "label"} | options
    task: Task = TASKS.read(section).build(data=None, seed=0)
    return task


@pytest.mark.parametrize(
    ("labels", "kind", "named", "places"),
    [
        (("negative", "positive"), "sentiment", None, [0, 1]),
        (("pos", "neg"), "sentiment", None, [0, 1]),  # files order classes by name: neg, pos
        (("Negative", "Neutral", "Positive"), "sentiment", None, [0, 1, 2]),
        (("bad", "good"), "sentiment", ["good", "bad"], [1, 0]),
        (("bad", "good", "so so"), "sentiment", ["bad", "so so", "good"], [0, 2, 1]),
    ],
)
def test_classes_are_found_by_their_names(labels: Any, kind: Any, named: Any, places: Any, tmp_path: Path) -> None:
    assert check_task(files(tmp_path, labels), kind, named) == places


@pytest.mark.parametrize(
    ("labels", "kind", "named", "why"),
    [
        (("bad", "good"), "sentiment", None, "the classes of files .bad, good. are not known"),
        (("neutral", "positive"), "sentiment", None, "not known"),
        (("bad", "good"), "sentiment", ["bad", "gud"], "not known"),
        (("a", "b", "c", "d"), "sentiment", ["a", "b", "c", "d"], "not known"),
        (("negative", "positive"), "paraphrase", None, "is for tasks with two texts and classes"),
        (("negative", "positive"), "reading", None, "is for tasks with spans, and files is not one"),
    ],
)
def test_other_tasks_are_refused(labels: Any, kind: Any, named: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        check_task(files(tmp_path, labels), kind, named)


def test_pairs_and_numbers_are_refused_for_sentiment(tmp_path: Path) -> None:
    tasks = files(tmp_path, ("negative", "positive"), pair=True), files(tmp_path, ("0.5", "1.5"))
    for task in tasks:
        with pytest.raises(InputError, match="is for tasks with one text and classes"):
            check_task(task, "sentiment", None)
    assert check_task(tasks[0], "paraphrase", ["negative", "positive"]) == [0, 1]


def cases_of(*groups: list[Any]) -> list[Case]:
    values = {"test": "t", "capability": "C", "type": "INV", "expect": "same"}
    return [Case.model_validate(values | {"examples": group}) for group in groups]


def test_models_are_asked_as_one_text_at_a_time(tmp_path: Path) -> None:
    """Whatever the order of lengths, a text that occurs twice, and an order of classes that is not the suite's."""
    torch.manual_seed(0)
    model, words = BertForSequenceClassification(config("Bert")).eval(), tokenizer(0)
    model.classifier.weight.data *= 30  # sure of something
    cases = cases_of(["a flat minimum keeps its loss", "a loss"], ["a loss", "gone", "most weights are gone"])
    task = files(tmp_path, ("bad", "good"))
    questions = Questions(task, "sentiment", cases, words, max_length=16, labels=["good", "bad"])
    assert len(questions._split) == 4
    assert Counter(len(row["input_ids"]) for row in questions._split.rows).total() == 4
    for case, found in zip(cases, questions.ask(model), strict=True):
        with torch.no_grad():
            logits = [
                model(**words(text, return_tensors="pt")).logits[0].double().softmax(-1) for text in case.examples
            ]
        expected = with_neutral(np.array([float(row[0]) for row in logits]))  # class 0, bad, is the suite's positive
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
        assert found.labels == expected.argmax(axis=1).tolist()


def test_spans_are_texts_as_the_task_decodes_them(tmp_path: Path) -> None:
    context, question = "a flat minimum keeps its loss", "its loss"
    row = {"question": question, "context": context, "answers": {"text": ["flat"], "answer_start": [2]}}
    (tmp_path / "squad").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "squad" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    task: Any = TASKS.read({"name": "squad", "doc_stride": 2}).build(data=tmp_path, seed=0)
    torch.manual_seed(0)
    model, words = BertForQuestionAnswering(config("Bert")).eval(), tokenizer(0)
    long = ("most weights are gone when its loss keeps a flat minimum gone gone gone gone", "weights")
    cases = cases_of([long, (context, question)])
    [found] = Questions(task, "reading", cases, words, max_length=16).ask(model)
    assert found.probabilities is None and found.labels[0] and str(found.labels[0]) in long[0]
    split = task.encode(words, 16)[1]["validation"]
    assert found.labels[1] == task.answers(split, predictions_of(model, split, words))[0]


def test_the_format_in_the_docs_is_read_and_names_every_expectation(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text(encoding="utf8")
    shown = page[page.index('```\n{"format"') + 4 :].partition("```")[0]
    (tmp_path / "own.jsonl").write_text(shown)
    assert [case.expect for case in read_suite(str(tmp_path / "own.jsonl")).cases] == ["label", "same"]
    assert all(f"`{name}`" in page for name in EXPECTATIONS)
