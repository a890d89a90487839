"""The main job over architecture families and kinds of task: tiny models, a user's own files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import trainflat
from tests.support.families import FAMILIES, WORDS, config, write
from tests.support.marks import quick
from tests.support.runs import assert_sound, own_files, recipe
from trainflat.commands.run import _emptied
from trainflat.records.run import MatrixZeros, Stage


# Those whose layers, attention or matrices are unlike BERT's; the others go through every room but this one.
@pytest.mark.parametrize("family", quick(FAMILIES, "Albert", "DebertaV2", "ModernBert"))
def test_every_family_is_trained_flat_and_pruned(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    maker = getattr(__import__("transformers"), f"{family}ForSequenceClassification")
    model = write(tmp_path / "model", maker(config(family)))
    record = trainflat.run(recipe(model, own_files(tmp_path)), out=tmp_path / "runs")
    assert_sound(record, tmp_path / "runs")


@pytest.mark.parametrize("options", [{"kind": "regression"}, {"text": ["text", "other"]}], ids=["numbers", "pairs"])
def test_numbers_and_pairs(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    maker = __import__("transformers").BertForSequenceClassification
    kind = options.pop("kind", "classification")
    labels = {"num_labels": 1, "problem_type": "regression"} if kind == "regression" else {}
    model = write(tmp_path / "model", maker(config("Bert", **labels)))
    record = trainflat.run(recipe(model, own_files(tmp_path, kind) | options), out=tmp_path / "runs")
    assert_sound(record, tmp_path / "runs")
    assert record.task.kind == kind


@pytest.mark.parametrize(
    "setting", [{"accumulate": 2, "evaluate_every": 2}, {"batching": "random", "keep": "last"}], ids=str
)
def test_training_options_reach_the_run(setting: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = write(tmp_path / "model", __import__("transformers").BertForSequenceClassification(config("Bert")))
    record = trainflat.run(recipe(model, own_files(tmp_path), **setting), out=tmp_path / "runs")
    assert_sound(record, tmp_path / "runs")
    again = trainflat.run(recipe(model, own_files(tmp_path), **setting), out=tmp_path / "again")
    assert again.digest == record.digest


def test_spans_of_a_made_squad(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = write(tmp_path / "model", __import__("transformers").BertForQuestionAnswering(config("Bert")))
    rows = []
    for i in range(24):
        words = [WORDS[(i + k) % len(WORDS)] for k in range(9)]
        answer = words[i % 9]
        start = len(" ".join(words[: i % 9])) + (1 if i % 9 else 0)
        answers = {"text": [answer], "answer_start": [start]}
        context, question = " ".join(words), f"when {answer}"
        rows.append({"id": str(i), "title": "t", "context": context, "question": question, "answers": answers})
    for split in ("train", "validation"):
        (tmp_path / "squad").mkdir(exist_ok=True)
        (tmp_path / "squad" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "squad", "doc_stride": 3}
    record = trainflat.run(recipe(model, task), data=tmp_path, out=tmp_path / "runs")
    assert_sound(record, tmp_path / "runs")
    assert set(record.stages[0].scores["validation"]) >= {"f1", "exact_match"}
    assert all(stage.without for stage in record.stages)  # there are rows enough for groups


def test_a_matrix_that_a_cut_empties_is_named():
    def stage(zeros: int, sparsity: float = 0.5) -> Stage:
        matrices = [MatrixZeros(name=name, entries=100, zeros=n) for name, n in (("query", 40), ("pooler", zeros))]
        return Stage.model_construct(name="s", target_sparsity=sparsity, matrices=matrices)

    assert "nothing is left of pooler: protocol.scope=layer" in _emptied(stage(99))
    assert _emptied(stage(98)) == _emptied(stage(100, sparsity=0.99)) == ""
