"""`trainflat export`: each format answers as the model does, and what does not is not kept."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering, BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from trainflat.cli.main import main
from trainflat.commands.export import CHECKED, export
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import seal, verify
from trainflat.evaluation import compare_answers
from trainflat.export import EXPORTERS
from trainflat.export.sparse import Sparse
from trainflat.pruning import MagnitudePruner
from trainflat.tasks.stdlib_docs import PARTS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned stage."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        config("Bert", num_hidden_layers=1, hidden_size=32, intermediate_size=64, initializer_range=0.5)
    ).eval()
    MagnitudePruner(model, sparsity=0.9).prune()
    folder = write(tmp_path_factory.mktemp("run") / "sparsity-0.90", model)
    seal(folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["trainflat", "export", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_says_what_was_compared(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, model, "--to", "sparse", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "42 texts: logits differ by 0.0e+00 at most, 100.0% of the predictions are the same."
    assert lines[1].endswith(" MB.") and lines[2] == str(tmp_path / "out")
    verify(tmp_path / "out")
    checked = json.loads((tmp_path / "out" / CHECKED).read_text())
    assert checked["difference"] == 0 and checked["options"] == {"values": "fp32", "embeddings": "fp32"}
    weights = (tmp_path / "out" / "trainflat.safetensors").stat().st_size
    assert checked["bytes"] == weights < checked["source_bytes"]


def test_the_folder_is_beside_the_model_unless_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (model, "--to", "sparse", "--set", "values=int8", "--set", "embeddings=int8")
    assert run(monkeypatch, capsys, *arguments)[0] == 0
    out = model.parent / "sparsity-0.90-sparse"
    assert type(trainflat.load(out)) is BertForSequenceClassification
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and "is there already" in err


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("--to", "sparsee"), ("no export format is called 'sparsee'", "Did you mean 'sparse'?")),
        (("--to", "sparse", "--set", "value=int8"), ("option of export format 'sparse'", "Did you mean 'values'?")),
        (
            ("--to", "sparse", "--set", "values=int4"),
            ("--to sparse: values:", "'fp32', 'fp16' or 'int8' is expected, got 'int4'"),
        ),
        (("--to", "sparse", "--task", "sts"), ("no task is called 'sts'",)),
    ],
)
def test_refusals(
    *,
    arguments: tuple[str, ...],
    pieces: tuple[str, ...],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(monkeypatch, capsys, model, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and list(tmp_path.iterdir()) == []
    for piece in pieces:
        assert piece in err


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    BertForSequenceClassification(config("Bert")).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="tokenizer"):
        export(tmp_path / "model", "sparse", tmp_path / "out")


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    exporter = EXPORTERS[name]
    monkeypatch.setattr("trainflat.engines.base.find_spec", lambda package: None)
    if not exporter.packages:
        exporter().check_installed()
        return
    with pytest.raises(
        InputError,
        match=rf"needs {', '.join(exporter.packages)}\. Install: pip install 'trainflat\[{exporter.extra}\]'",
    ):
        export(model, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Off(nn.Module):
    """Answers as another model does, but for ``by`` in the first logit of each row."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        logits = self.model(**batch)["logits"].clone()
        logits[:, 0] += self.by
        return {"logits": logits}


@pytest.mark.parametrize(
    ("options", "by", "message"),
    [
        ((), 1e-3, "answers differently: logits up to"),
        ((), torch.nan, "are off by inf"),
        (("values=fp16",), -100.0, "of the predictions are the same"),
    ],
)
def test_a_file_that_answers_differently_is_not_kept(
    *, options: tuple[str, ...], by: float, message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Sparse.open
    monkeypatch.setattr(Sparse, "open", lambda self, folder: Off(honest(folder), by))
    with pytest.raises(InputError, match=message):
        export(model, "sparse", tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_model_is_scored_on_its_task(model: Path, tmp_path: Path) -> None:
    classes = dict(enumerate(PARTS))
    settings = config("Bert", num_hidden_layers=1, max_position_embeddings=128, id2label=classes)
    source = write(tmp_path / "model", BertForSequenceClassification(settings))
    found = export(source, "sparse", tmp_path / "out", task="stdlib-docs")
    assert found.metric == "accuracy" and found.score == found.source_score and found.score is not None
    with pytest.raises(InputError, match="was fine-tuned for the classes"):
        export(model, "sparse", tmp_path / "other", task="stdlib-docs")


KINDS = [BertForSequenceClassification, pytest.param(BertForQuestionAnswering, marks=pytest.mark.slow)]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_torch_export_varies_in_batch_and_length(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = write(tmp_path / "model", kind(config("Bert", num_hidden_layers=1)).eval())
    found = export(source, "torch-export", tmp_path / "out")
    assert found.difference < 1e-5 and found.agreement == 1
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    batch = {name: torch.ones(5, 9, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = trainflat.load(source)(**batch)
        answers = program(**batch)
    names = ("logits",) if kind is BertForSequenceClassification else ("start_logits", "end_logits")
    for name, answer in zip(names, answers, strict=True):
        torch.testing.assert_close(answer, expected[name])


class Told(nn.Module):
    """Gives the logits that it was told, whatever it is asked."""

    def __init__(self, **logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = {name: torch.tensor(value) for name, value in logits.items()}

    def forward(self, **_: Tensor) -> dict[str, Tensor]:
        return self.logits


def test_agreement_by_hand() -> None:
    mask = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    one, other = Told(logits=[[1.0, 2.0], [3.0, 0.0]]), Told(logits=[[1.0, 1.5], [3.0, 4.0]])
    found = compare_answers(one, other, [mask], kind="classes")
    assert (found.rows, found.difference, found.scale, found.share) == (2, 4.0, 3.0, 0.5)
    scores = compare_answers(Told(logits=[[0.0], [2.0]]), Told(logits=[[0.24], [2.26]]), [mask])
    assert scores.share == 0.5  # the standard deviation is 1
    foreign = compare_answers(Told(logits=[[5.0], [5.2]]), Told(logits=[[5.5], [5.8]]), [mask], foreign=True)
    assert foreign.share == 0.5  # the largest score is 5.2
    spans = {"start_logits": [[1.0, 0.0, 9.0], [0.0, 0.0, 1.0]], "end_logits": [[0.0, 1.0, 9.0], [0.0, 0.0, 1.0]]}
    moved = {"start_logits": [[1.0, 0.0, -9.0], [0.0, 0.0, 1.0]], "end_logits": [[0.0, 1.0, 9.0], [2.0, 0.0, 1.0]]}
    padded = compare_answers(Told(**spans), Told(**moved), [mask])
    assert (padded.difference, padded.scale, padded.share) == (2.0, 1.0, 0.5)  # padding says nothing


def test_an_unknown_format() -> None:
    with pytest.raises(UnknownName):
        export(Path(), "tflite", "out")
