"""Published figures appear beside runs that they may be compared with, and beside no others."""

import pytest

from tests.support.records import make_record
from trainflat.records.run import TaskInfo
from trainflat.report.panels import make_panels
from trainflat.report.published import published, reference_sparsity

REFERENCE = {"mnli": 70, "qqp": 90, "stsb": 50, "qnli": 70, "mrpc": 50, "rte": 60, "sst2": 60, "cola": 50, "squad": 40}


def figures(**options) -> dict[tuple[str, float], tuple[float, float | None]]:
    (panel,) = make_panels([make_record(**options)])
    return {(f.optimizer, f.sparsity): (f.mean, f.std) for f in published(panel)}


@pytest.mark.parametrize("model", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_iterative_pruning_with_rewinding_is_compared_with_imp(model):
    assert figures(model=model) == {
        ("reference", 0.0): (88.4, 0.3),
        ("adam", 0.0): (89.0, 0.1),
        ("sam", 0.0): (89.4, 0.2),
        ("reference", 0.5): (88.2, 0.2),
        ("adam", 0.5): (88.3, 0.2),
        ("sam", 0.5): (88.9, 0.2),
    }


def test_iterative_pruning_without_rewinding_is_compared_with_standard_pruning():
    found = figures(protocol={"name": "iterative", "rewind": "none"})
    assert {key: value for key, value in found.items() if key[1]} == {
        ("reference", 0.5): (88.5, None),
        ("adam", 0.5): (89.2, None),
        ("sam", 0.5): (89.6, None),
    }


@pytest.mark.parametrize("protocol", [{"name": "dense"}, {"name": "one-shot"}, {"name": "iterative", "rewind": 40}])
def test_other_protocols_are_compared_where_they_are_dense(protocol):
    assert {sparsity for _, sparsity in figures(protocol=protocol)} == {0.0}


@pytest.mark.parametrize(
    "options",
    [
        {"model": "minilm"},
        {"layers": 3},
        {"partial": True},
        {"task": "stdlib-docs"},
        {"protocol": {"name": "ticket", "sparsity": 0.5}},
        {"task_info": {"split": "holdout"}},
        {"task_info": {"split": "train"}},
        {"task_info": {"metric": "spearman"}},
    ],
    ids=str,
)
def test_nothing_is_compared_that_differs(options):
    changed = options.pop("task_info", None)
    if changed:
        info = TaskInfo(name="stsb", kind="regression", split="validation", metric="pearson")
        options["task"] = "stsb"
        record = make_record(**options).model_copy(update={"task": info.model_copy(update=changed)})
        assert published(make_panels([record])[0]) == []
    else:
        assert figures(**options) == {}


def test_matched_mnli_is_compared_and_mismatched_is_not():
    record = make_record(task="mnli")
    for split, count in ("validation_matched", 6), ("validation_mismatched", 0):
        info = record.task.model_copy(update={"split": split})
        assert len(published(make_panels([record.model_copy(update={"task": info})])[0])) == count


@pytest.mark.parametrize("task", REFERENCE)
def test_reference_sparsities(task):
    assert reference_sparsity(make_panels([make_record(task=task)])[0]) == REFERENCE[task] / 100
    assert reference_sparsity(make_panels([make_record(task=task, model="minilm")])[0]) is None


@pytest.mark.parametrize("task", [task for task in REFERENCE if task != "mnli"])
def test_every_task_finds_its_metric(task):
    assert len(figures(task=task)) == 6
