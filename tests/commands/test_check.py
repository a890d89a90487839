"""``check`` refuses what ``run`` refuses, in the same words; and what is refused leaves nothing behind."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertForQuestionAnswering, BertForSequenceClassification

import trainflat
from tests.support.families import FAMILIES, HEADS, config, write
from tests.support.runs import own_files, recipe
from trainflat.cli.plans import print_plan
from trainflat.commands import run_folder as folder_module
from trainflat.core.errors import InputError
from trainflat.core.processes import is_first_process
from trainflat.models import load_encoder, load_on_meta


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planning")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    write(folder / "other", BertForSequenceClassification(config("Bert", num_hidden_layers=2)))
    write(folder / "wider", BertForSequenceClassification(config("Bert", intermediate_size=16)))
    write(folder / "mute", BertForSequenceClassification(config("Bert")))
    for file in (folder / "mute").glob("tokenizer*"):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def given(place: Path) -> dict[str, Any]:
    made = recipe(place / "model", own_files(place)) | {"evaluation": {"latency": {"batches": []}}}
    return made | {"protocol": {"name": "iterative", "sparsities": [0.5]}}


@pytest.fixture(scope="module")
def found(given: dict[str, Any], place: Path) -> Path:
    """A finished run that holds a ticket."""
    trainflat.run(given, out=place / "found")
    return next((place / "found").iterdir())


def test_both_refuse_in_the_same_words_and_leave_nothing(
    given: dict[str, Any], place: Path, found: Path, tmp_path: Path
) -> None:
    ticket = {"name": "ticket", "sparsity": 0.5, "run": str(found)}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"protocol.rewind": 99}, "beyond the 5 steps of the dense training"),
        ({"model": "/nope"}, "there is no model folder /nope"),
        ({"model.layers": 7}, "of the 3 layers of model"),
        ({"model": str(place / "mute")}, "tokenizer"),
        ({"training.max_length": 100000}, "training.max_length 100000 is more than the 32 positions"),
        ({"training.precision": "fp16"}, "fp16 needs a GPU"),
        ({"training.report_to": ["foo"]}, "training.report_to: no tracker is called 'foo'"),
        ({"training.optimizer": {"name": "sam", "exclude": "nosuch"}}, "exclude='nosuch' matches no parameter"),
        (
            {"training.optimizer": {"name": "sam", "base": "muon"}},
            "2D parameters.*Choose another optimizer",
        ),
        ({"name": "a" * 300}, "200 characters at most; got 300"),
        ({"protocol": ticket | {"run": "/nope"}}, "the run /nope has no masks at sparsity 0.5"),
        ({"protocol": ticket | {"sparsity": 0.75}}, "It has: sparsity-0.50"),
        ({"protocol": ticket, "model": str(place / "other")}, "found on another architecture"),
        ({"protocol": ticket, "model": str(place / "wider")}, "is masked with shape"),
    ]
    for number, (overrides, message) in enumerate(refused):
        out = tmp_path / str(number) / "runs"
        lines = []
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError) as error:
                call(given, out=out, overrides=overrides)
            lines.append(str(error.value))
        assert message in lines[0] or re.search(message, lines[0])
        assert lines[0] == lines[1]
        assert not out.parent.exists()


def test_both_refuse_a_folder_in_the_same_words_and_write_nothing(
    given: dict[str, Any], found: Path, tmp_path: Path
) -> None:
    name = found.name

    def claim(**changes: Any) -> str:
        return json.dumps(json.loads((found / "claim.json").read_text()) | changes)

    refused = [
        ("out", "", "Not a directory"),
        (f"out/{name}", "", "File exists"),
        (f"out/{name}/notes.txt", "mine", "holds files that no run of this recipe wrote"),
        (f"out/{name}/claim.json", claim(recipe="0" * 64), "holds the run of another recipe"),
        (f"out/{name}/claim.json", claim(data={}), "was begun with other train data"),
        (f"out/{name}/claim.json", "{", "claim.json is damaged"),
    ]
    for number, (file, text, message) in enumerate(refused):
        place = tmp_path / str(number)
        path = place / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        lines = []
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError) as error:
                call(given, out=place / "out")
            lines.append(str(error.value))
            if call is trainflat.plan or "claim" not in file:  # its lock stays beside a claim
                assert [p for p in place.rglob("*") if p.is_file()] == [path]
            assert path.read_text() == text
        assert message in lines[0]
        assert lines[0] == lines[1]
    assert trainflat.plan(given, out=found.parent).folder == found  # complete: nothing to refuse


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o555, 0])
def test_both_refuse_a_folder_that_cannot_be_written(mode: int, given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(mode)
    lines = []
    for call in (trainflat.plan, trainflat.run):
        with pytest.raises(InputError, match="Permission denied") as error:
            call(given, out=tmp_path / "closed" / "runs")
        lines.append(str(error.value))
    (tmp_path / "closed").chmod(0o755)
    assert lines[0] == lines[1]


def test_what_is_left_open_is_shown_as_what_it_comes_to(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    iterative = {"name": "iterative", "sparsities": [0.5]}
    for protocol, shown in [
        (iterative, "head reset"),
        (iterative | {"rewind": "none"}, "head keep"),
        (iterative | {"rewind": "none", "head": "reset"}, "head reset"),
        ({"name": "ticket", "sparsity": 0.5, "structure": "random"}, "structure random"),
    ]:
        print_plan(trainflat.plan(given | {"protocol": protocol}, out=tmp_path))
        text = capsys.readouterr().out
        assert shown in text
        assert "None" not in text
        assert "  .lock\n" in text


def test_a_tracker_that_is_not_installed(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: False)
    for name, package in (("tensorboard", '"trainflat\\[tracking\\]"'), ("trackio", "trackio")):
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError, match=f"report_to: {name} cannot be used here.*pip install {package}"):
                call(given, out=tmp_path / "runs", overrides={"training.report_to": [name]})
    assert list(tmp_path.iterdir()) == []
    assert trainflat.plan(given, overrides={"training.report_to": ["none"]}).steps == 10


def test_a_model_that_cannot_be_reached_is_said_not_to_be_looked_at(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan = trainflat.plan(given, overrides={"model": "no/such-model-anywhere"}, out=tmp_path)
    print_plan(plan)
    assert plan.encoder is None
    assert "no/such-model-anywhere (not looked at: the hub cannot be reached)" in capsys.readouterr().out
    print_plan(trainflat.plan(given, out=tmp_path))
    assert "not looked at" not in capsys.readouterr().out
    with pytest.raises(InputError, match="no/such-model-anywhere"):
        trainflat.run(given, overrides={"model": "no/such-model-anywhere"}, out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_loads_no_weights(
    given: dict[str, Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    monkeypatch.setattr("trainflat.models.loading.read_tensors", lambda _: pytest.fail("weights are read"))
    assert trainflat.plan(given, overrides={"model": str(folder)}).encoder is not None
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="not a whole safetensors file"):  # as its header tells
        trainflat.plan(given, overrides={"model": str(folder)})


def test_a_refused_call_takes_back_only_what_it_wrote(given: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    folder = trainflat.plan(given, out=out).folder
    wrong = {"model": "no/such-model-anywhere"}
    elsewhere = trainflat.plan(given, out=out, overrides=wrong).folder

    elsewhere.mkdir(parents=True)
    with pytest.raises(InputError):
        trainflat.run(given, out=out, overrides=wrong)
    assert elsewhere.is_dir()  # it was there before
    assert list(elsewhere.iterdir()) == []

    folder.mkdir()
    (folder / "recipe.yaml").write_text("somebody's own")
    with pytest.raises(InputError, match="holds files that no run of this recipe wrote"):
        trainflat.run(given, out=out)
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"recipe.yaml": "somebody's own"}


def test_a_run_that_was_begun_is_kept_when_a_later_call_is_refused(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:  # as SIGKILL does it: nothing is taken back
        patch.setattr(folder_module, "_withdraw", lambda *args, **kwargs: None)
        patch.setattr("trainflat.commands.prepare.load_encoder", dies)
        with pytest.raises(Killed):
            trainflat.run(given, out=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert {p.name for p in before} >= {"claim.json", "recipe.yaml"}
    monkeypatch.setattr("trainflat.commands.prepare.load_encoder", dies)
    with pytest.raises(Killed):
        trainflat.run(given, out=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_learned_is_shown(
    given: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")

    def shown(task: dict[str, Any], **overrides: Any) -> str:
        print_plan(trainflat.plan(given | {"task": task}, overrides=overrides))
        return capsys.readouterr().out

    text = shown(own_files(place))
    for piece in ("column text", "classification: 2 classes: no, yes", "accuracy on "):
        assert piece in text
    assert "columns text and other" in shown(own_files(place, text=["text", "other"]))
    text = shown(own_files(place, "regression"))
    assert "regression: a number" in text
    assert "pearson on " in text
    many = place / "many.csv"
    many.write_text("text,label\n" + "".join(f"flat {i},c{i % 25:02}\n" for i in range(100)))
    text = shown({"name": "files", "train_file": str(many)})
    assert "25 classes: c00, c01," in text
    assert "c19 and 5 more" in text
    assert "c20" not in text


def test_steps_of_spans_are_not_known_before_they_are_encoded(given: dict[str, Any], tmp_path: Path) -> None:
    model = write(tmp_path / "model", BertForQuestionAnswering(config("Bert")))
    row = '{"id": "1", "title": "t", "context": "flat loss", "question": "when", '
    row += '"answers": {"text": ["flat"], "answer_start": [0]}}\n'
    (tmp_path / "squad").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "squad" / f"{split}.jsonl").write_text(row)
    made = given | {"task": {"name": "squad", "doc_stride": 3}, "model": str(model)}
    plan = trainflat.plan(made, data=tmp_path, overrides={"protocol.rewind": 9})  # windows may well make nine steps
    assert plan.encoder is not None
    assert (plan.task.head.kind, plan.exact, plan.steps_per_training) == ("spans", False, 1)


def test_a_stray_rank_is_no_second_process(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    record = trainflat.run(given, out=tmp_path, overrides={"protocol": {"name": "dense"}})
    assert (next(tmp_path.iterdir()) / "record.json").is_file()
    assert record.stages[0].files
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_outline_is_the_model_without_its_weights(family: str, tmp_path: Path) -> None:
    folder = str(write(tmp_path, AutoModel.from_config(config(family))))
    for head in HEADS.values():
        seen, loaded = load_on_meta(folder, head, layers=2), load_encoder(folder, head, layers=2)
        assert seen is not None
        assert seen.max_length == loaded.max_length == 32
        assert {n: p.shape for n, p in seen.model.named_parameters()} == {
            n: p.shape for n, p in loaded.model.named_parameters()
        }
        assert all(p.is_meta for p in seen.model.parameters())
