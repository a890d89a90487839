"""Bad input and bad luck, end to end: one clear line, exit code 2 (1 where training failed), nothing half-written."""

import errno
import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from tests.support.commands import Command, command, folder_of
from tests.support.families import config, write
from tests.support.marks import quick
from tests.support.runs import own_files, recipe
from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import load_tensors, read_json, save_tensors, write_json
from trainflat.pruning import Masks
from trainflat.records.run import Record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    model = write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    return recipe(model, own_files(tmp_path)) | {"evaluation": {"latency": {"batches": []}}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda given: command(given, tmp_path, monkeypatch, capsys)


def test_a_folder_of_another_recipe_other_data_or_other_files(
    given: dict[str, Any], tmp_path: Path, run: Command
) -> None:
    folder = folder_of(given, tmp_path)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("not ours")
    code, line = run(given)
    assert (code, "holds files that no run of this recipe wrote" in line) == (2, True)
    assert (folder / "thesis.tex").read_text() == "not ours"
    (folder / "thesis.tex").unlink()

    assert run(given)[0] == 0
    claim = json.loads((folder / "claim.json").read_text())
    (folder / "claim.json").write_text(json.dumps(claim | {"recipe": "0" * 64}))
    assert "holds the run of another recipe" in run(given)[1]
    (folder / "claim.json").write_text(json.dumps(claim))

    data = Path(given["task"]["train_file"])
    data.write_text(data.read_text().replace("flat", "sharp", 1))
    code, line = run(given)
    assert (code, "begun with other" in line) == (2, True)


def test_two_runs_in_one_folder(given: dict[str, Any], tmp_path: Path, run: Command) -> None:
    folder = folder_of(given, tmp_path)
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, line = run(given)
    assert (code, "another process is working in" in line) == (2, True)
    assert run(given)[0] == 0


@pytest.mark.parametrize("full_at", quick([1, 2, 4, 7, 9], 1, 7))
def test_a_full_disk(
    full_at: int, given: dict[str, Any], tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th file that is moved into place, or flushed, finds no space; with space again the run ends well."""
    calls = 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, line = run(given)
    assert code == 2
    assert "No space left on device" in line
    assert "Free some space" in line
    folder = folder_of(given, tmp_path)
    assert not (folder / "record.json").exists()
    assert not list(folder.rglob("*.tmp"))
    assert run(given)[0] == 0


@pytest.mark.parametrize("writer", ["transformers.trainer:torch.save", "transformers.modeling_utils:safe_save_file"])
def test_a_full_disk_under_the_trainer_s_own_files(
    writer: str, given: dict[str, Any], run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        if "torch" in writer:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file")
        raise OSError(errno.ENOSPC, "No space left on device")

    module, name = writer.split(":")
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", full)
        code, line = run(given)
    assert (code, "cannot write" in line, "Free some space" in line) == (2, True, True)
    assert run(given)[0] == 0


def test_a_loss_that_is_no_number_ends_with_exit_code_1(given: dict[str, Any], tmp_path: Path, run: Command) -> None:
    given["training"] = {**given["training"], "optimizer": {"name": "adamw", "lr": 1e30}, "max_grad_norm": 0.0}
    given["training"]["epochs"] = 6
    code, line = run(given)
    assert code == 1
    assert re.search(r"the loss is (nan|inf|-inf) at step \d+, batch \d+ of epoch \d+ \(training rows \d+", line)
    assert not (folder_of(given, tmp_path) / "record.json").exists()


def change(given: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    section, key = path.split(".")
    return given | {section: {**given[section], key: value}} if section != "model" else given | {section: value}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.max_length", 33, "more than the 32 positions"),
        ("training.precision", "fp16", "needs a GPU"),
        ("model.name", "no/such-model-anywhere", "no/such-model-anywhere"),
        ("task.label", "lable", "Did you mean 'label'"),
        ("protocol.rewind", 1000, "lies beyond the 5 steps"),
    ],
)
def test_what_only_the_data_or_the_model_can_tell(
    path: str, value: Any, message: str, given: dict[str, Any], run: Command
) -> None:
    tmp_path = Path(given["model"]).parent
    code, line = run(change(given, path, value))
    assert code == 2
    assert message in line
    assert not list(tmp_path.glob("runs/*/stages/*"))
    assert not list(tmp_path.glob("runs/*/record.json"))


def test_a_model_without_a_tokenizer(given: dict[str, Any], tmp_path: Path, run: Command) -> None:
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    code, line = run(given)
    assert (code, "tokenizer" in line) == (2, True)


def test_processes_that_do_not_divide_the_batch(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from trainflat.training.fit import training_arguments
    from trainflat.training.options import TrainingOptions

    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="batch_size 32 cannot be cut into 1 micro-batches on 3 processes"):
        training_arguments(TrainingOptions(), None, Path("x"), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [read_json, load_tensors, Masks.load, Record.load])
def test_a_foreign_file_is_not_to_be_thrown_away(read: Any, tmp_path: Path) -> None:
    for number, text in enumerate(["\\documentclass{article}", "[1, 2]", '{"stages": 3}']):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        if read is read_json and number:
            continue
        with pytest.raises(DamagedFile, match="If trainflat wrote it, it is damaged: move it away") as error:
            read(path)
        assert "elete" not in str(error.value)
        assert path.read_text() == text


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_user_s_umask_gives(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "value.json", {})
        save_tensors(tmp_path / "masks.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_colleagues_can_read_a_run(given: dict[str, Any], tmp_path: Path, run: Command) -> None:
    before = os.umask(0o022)
    try:
        assert run(given | {"protocol": {"name": "dense"}})[0] == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == dict.fromkeys(
        [p.name for p in files], "0o644"
    )
