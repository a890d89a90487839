"""Files of a run that are damaged, lost or exchanged: detected by their hashes, named, and made again as told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.commands import Command, command
from tests.support.damage import assert_refused, copied, digest, flip_a_byte, rewinding, truncate
from tests.support.families import config, write
from tests.support.marks import quick
from trainflat.protocols import StageStore


class Killed(Exception):
    pass


DAMAGE = {"truncated": truncate, "flipped": flip_a_byte, "missing": Path.unlink}
damaged = pytest.mark.parametrize("damage", [pytest.param(how, id=name) for name, how in DAMAGE.items()])
# Each kind of damage is refused by the same lines, whatever is done with the folder.
mostly_flipped = pytest.mark.parametrize(
    "damage",
    [pytest.param(how, id=k, marks=() if k == "flipped" else pytest.mark.slow) for k, how in DAMAGE.items()],
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return folder


@pytest.fixture(scope="module")
def given(place: Path) -> dict[str, Any]:
    return rewinding(place)


@pytest.fixture(scope="module")
def whole(given: dict[str, Any], place: Path) -> Path:
    trainflat.run(given, out=place / "whole")
    return place / "whole"


@pytest.fixture(scope="module")
def interrupted(given: dict[str, Any], place: Path) -> Path:
    """Trained dense, not yet committed: checkpoints lie in ``work/``."""

    def dies(self: Any, *args: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageStore, "commit", dies)
        with pytest.raises(Killed):
            trainflat.run(given, out=place / "interrupted")
    return place / "interrupted"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda given: command(given, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    "file", quick(["model.safetensors", "masks.safetensors", "stage.json", "config.json"], "model.safetensors")
)
@damaged
def test_a_stage(
    *, file: str, damage: Callable[[Path], None], given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "record.json").unlink()  # as if the run had been killed before it
    stage = folder / "stages" / "sparsity-0.50"
    damage(stage / file)
    assert_refused(run(given), file, "Delete the folder")
    shutil.rmtree(stage)
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


@pytest.mark.parametrize("file", ["model.safetensors", "stage.json", "manifest.json"])
@mostly_flipped
def test_a_stage_of_a_complete_run(
    *, file: str, damage: Callable[[Path], None], given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(whole, given, tmp_path)
    stage = folder / "stages" / "sparsity-0.50"
    damage(stage / file)
    line = f"Delete the folder {stage} and {folder / 'record.json'} to compute it again."
    assert_refused(run(given), "sparsity-0.50/", line)
    if (stage / "manifest.json").is_file() and file != "manifest.json":
        assert_refused(run(given), f"sparsity-0.50/{file}")
    shutil.rmtree(stage)
    (folder / "record.json").unlink()
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


@damaged
def test_a_manifest(
    damage: Callable[[Path], None], given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "record.json").unlink()
    manifest = folder / "stages" / "sparsity-0.50" / "manifest.json"
    damage(manifest)
    if manifest.exists():  # without one the stage counts as unfinished
        assert_refused(run(given), "sparsity-0.50")
        manifest.unlink()
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


@mostly_flipped
def test_the_snapshot_that_is_rewound_to(
    damage: Callable[[Path], None], given: dict[str, Any], whole: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "stages" / "sparsity-0.50")
    damage(folder / "rewind" / "weights.safetensors")
    assert_refused(run(given), "weights.safetensors", "Delete the folder")
    shutil.rmtree(folder / "rewind")
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


@pytest.mark.parametrize("file", ["optimizer.pt", "trainer_state.json", "rng_state.pth", "model.safetensors"])
@mostly_flipped
def test_a_checkpoint(
    *,
    file: str,
    damage: Callable[[Path], None],
    given: dict[str, Any],
    whole: Path,
    interrupted: Path,
    tmp_path: Path,
    run: Command,
) -> None:
    folder = copied(interrupted, given, tmp_path)
    newest = max(folder.glob("work/dense/checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    damage(newest / file)
    assert_refused(run(given), f"{newest.name}/{file}", "Delete the folder")
    if file == "optimizer.pt":
        shutil.rmtree(newest)
        assert run(given)[0] == 0
        assert digest(folder) == digest(whole)


def test_a_best_checkpoint_that_is_gone_is_not_passed_over_in_silence(
    given: dict[str, Any], whole: Path, interrupted: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(interrupted, given, tmp_path)
    best, newest = sorted(folder.glob("work/dense/checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert json.loads((newest / "trainer_state.json").read_text())["best_global_step"] == int(best.name.split("-")[1])
    shutil.rmtree(best)
    assert run(given)[0] == 0
    assert digest(folder) == digest(whole)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": 1}'])
def test_a_claim(text: str, given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "claim.json").write_text(text)
    assert_refused(run(given), "claim.json is damaged")


def test_a_model_that_was_exchanged_between_two_rounds(
    given: dict[str, Any], whole: Path, place: Path, tmp_path: Path, run: Command
) -> None:
    folder = copied(whole, given, tmp_path)
    (folder / "record.json").unlink()
    torch.manual_seed(1)
    shutil.move(place / "model", tmp_path / "model")
    try:
        write(place / "model", BertForSequenceClassification(config("Bert")))
        assert_refused(run(given), "begun with other weights")
    finally:
        shutil.rmtree(place / "model")
        shutil.move(tmp_path / "model", place / "model")


def test_a_ticket_of_another_architecture(given: dict[str, Any], whole: Path, tmp_path: Path, run: Command) -> None:
    source = copied(whole, given, tmp_path)
    torch.manual_seed(0)
    changes = [("num_hidden_layers", 2), ("num_hidden_layers", 4), ("intermediate_size", 40)]
    for number, (key, value) in enumerate(changes):
        model = write(tmp_path / str(number), BertForSequenceClassification(config("Bert", **{key: value})))
        ticket = given | {"model": str(model), "protocol": {"name": "ticket", "sparsity": 0.5, "run": str(source)}}
        assert_refused(run(ticket), "layer.3" if value == 4 else "layer.")
        assert list((tmp_path / "runs").iterdir()) == [source]
