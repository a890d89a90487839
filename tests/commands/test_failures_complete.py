"""Complete runs of which a file was damaged, lost or exchanged: nothing of it is passed over, and each advice works."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertForSequenceClassification
from transformers.utils import logging as transformers_logging

import trainflat
from tests.support.commands import Command, command
from tests.support.damage import assert_refused, copied, digest, flip_a_byte, folder_of_whole, rewinding
from tests.support.families import config, write
from trainflat.core.errors import DamagedFile
from trainflat.core.files import seal
from trainflat.records.run import Record


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("complete")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return rewinding(folder)


@pytest.fixture(scope="module")
def whole(given: dict[str, Any]) -> Path:
    out = Path(given["model"]).parent / "whole"
    trainflat.run(given, out=out)
    return out


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda given: command(given, tmp_path, monkeypatch, capsys)


def empty(path: Path) -> None:
    path.write_text("{}")


def overwrite_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9] + b"\0 garbage")


def cut_the_last_line(path: Path) -> None:
    """It stays YAML, and what is missing has a default."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("where", "file", "damage"),
    [
        ("rewind", "weights.safetensors", flip_a_byte),
        ("rewind", "manifest.json", Path.unlink),
        *(
            pytest.param("rewind", file, damage, marks=pytest.mark.slow)
            for file, damage in (
                ("weights.safetensors", Path.unlink),
                ("manifest.json", flip_a_byte),
                ("manifest.json", empty),
            )
        ),
        ("stages/dense", "manifest.json", empty),
    ],
)
def test_whatever_a_complete_run_holds(
    *,
    where: str,
    file: str,
    damage: Callable[[Path], None],
    given: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    run: Command,
) -> None:
    folder = copied(whole, given, tmp_path)
    damage(folder / where / file)
    move = f"Delete the folder {folder / where} and {folder / 'record.json'} to compute it again."
    assert_refused(run(given), f"{where}/", move)
    with pytest.raises(DamagedFile, match=re.escape(move)):
        trainflat.plan(given, out=tmp_path / "runs")
    shutil.rmtree(folder / where)
    (folder / "record.json").unlink()
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


def test_a_stage_whose_files_and_manifest_were_exchanged_together(
    given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    """Its own seal is right, and the record tells other hashes."""
    folder = copied(whole, given, tmp_path)
    stage = folder / "stages" / "dense"
    flip_a_byte(stage / "model.safetensors")
    seal(stage)
    assert_refused(run(given), "dense/manifest.json is not what was written", f"and {folder / 'record.json'}")
    shutil.rmtree(stage)
    shutil.copytree(folder_of_whole(whole) / "stages" / "dense", stage)
    assert run(given)[0] == 0


@pytest.mark.parametrize("damage", [overwrite_the_end, cut_the_last_line, empty])
def test_the_recipe_that_a_run_tells(
    damage: Callable[[Path], None], given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    path = copied(whole, given, tmp_path) / "recipe.yaml"
    before = yaml.safe_load(path.read_text())
    damage(path)
    assert_refused(run(given), f"{path} is not what was written. Delete it: the next run writes it again.")
    path.unlink()
    assert run(given)[0] == 0
    assert yaml.safe_load(path.read_text()) == before
    assert run(given | {"training": given["training"] | {"report_to": ["none"]}})[0] == 0  # is no part of the recipe


def test_a_record_of_another_run(given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    path = copied(whole, given, tmp_path) / "record.json"
    Record.load(path).model_copy(update={"recipe_hash": "0" * 64}).sealed().save(path.parent)
    assert_refused(run(given), "is the record of another recipe. Move it away and run the recipe again.")
    path.rename(tmp_path / "elsewhere.json")
    assert run(given)[0] == 0


def test_a_record(given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    path = copied(whole, given, tmp_path) / "record.json"
    text = path.read_text()
    path.write_text(re.sub(r'"passes": \d+', '"passes": 3', text, count=1))
    assert_refused(run(given), "was changed after it was written", "Move it away and run the recipe again")
    path.rename(tmp_path / "moved.json")
    assert run(given)[0] == 0
    assert digest(path.parent) == digest(whole)
    path.write_text(text[: len(text) // 2])
    assert_refused(run(given), "record.json cannot be read")
    path.write_text("[]")
    assert_refused(run(given), "record.json is no record that trainflat wrote. If trainflat wrote it")
    path.unlink()
    assert run(given)[0] == 0
    assert digest(path.parent) == digest(whole)


def test_a_ticket_whose_masks_are_damaged(given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    source = copied(whole, given, tmp_path)
    ticket = given | {"protocol": {"name": "ticket", "sparsity": 0.5, "run": str(source)}}
    stage, record = source / "stages" / "sparsity-0.50", source / "record.json"
    move = f"Delete the folder {stage} and {record}, then run the recipe of {source} again."
    flip_a_byte(stage / "masks.safetensors")
    assert_refused(run(ticket), "masks.safetensors differs", move)
    (stage / "masks.safetensors").unlink()
    assert_refused(run(ticket), "masks.safetensors is missing", move)
    (stage / "manifest.json").unlink()
    assert_refused(run(ticket), "manifest.json is missing", move)
    shutil.rmtree(stage)
    record.unlink()
    assert run(given)[0] == 0
    assert digest(source) == digest(whole)
    assert run(ticket)[0] == 0


def test_a_ticket_of_a_run_in_progress(given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    source = copied(whole, given, tmp_path)
    ticket = given | {"protocol": {"name": "ticket", "sparsity": 0.5, "run": str(source)}}
    stage = source / "stages" / "sparsity-0.50"
    (source / "record.json").unlink()
    flip_a_byte(stage / "masks.safetensors")
    assert_refused(run(ticket), f"Delete the folder {stage}, then run the recipe of {source} again.")
    (stage / "manifest.json").unlink()  # the stage counts as unfinished
    assert_refused(run(ticket), "has no masks at sparsity 0.5. It has: none.")


def test_a_run_that_is_resumed_shows_no_bars_of_transformers(
    given: dict[str, Any], whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "record.json").unlink()
    transformers_logging.enable_progress_bar()
    trainflat.run(given, out=tmp_path / "runs")
    assert transformers_logging.is_progress_bar_enabled()
    assert "".join(capfd.readouterr()) == ""
    assert digest(folder) == digest(whole)
