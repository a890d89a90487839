"""A run goes on only where it would train the rounds that it was begun for, or its record says otherwise."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.commands import folder_of
from tests.support.damage import rewinding
from tests.support.families import config, write
from trainflat.commands import claims
from trainflat.commands import run as job
from trainflat.core.errors import InputError
from trainflat.records.run import Record

Patch = pytest.MonkeyPatch


class Killed(Exception):
    pass


def prepared(place: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    write(place / "model", BertForSequenceClassification(config("Bert")))
    return rewinding(place)


def interrupt(given: dict[str, Any], place: Path, monkeypatch: Patch) -> None:
    """A run that ends while its first model is measured."""

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(job, "measure", killed)
        trainflat.run(given, out=place / "runs")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A recipe, and the folder of its run, which ended while its first model was measured."""
    place = tmp_path_factory.mktemp("begun")
    made = prepared(place)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(made, place, patch)
    return made, place / "runs"


@pytest.fixture(scope="module")
def whole(begun: tuple[dict[str, Any], Path], tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of the same run, never interrupted."""
    return trainflat.run(begun[0], out=tmp_path_factory.mktemp("whole"))


@pytest.fixture
def given(begun: tuple[dict[str, Any], Path], tmp_path: Path) -> dict[str, Any]:
    made, runs = begun
    shutil.copytree(runs, tmp_path / "runs")
    return made


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_tokenizer(given: dict[str, Any], patch: Patch) -> None:
    path = Path(given["model"]) / "tokenizer.json"
    value = json.loads(path.read_text())
    words = value["model"]["vocab"]
    one, other = [word for word in words if not word.startswith("[")][:2]
    words[one], words[other] = words[other], words[one]
    path.write_text(json.dumps(value))


def other_settings(given: dict[str, Any], patch: Patch) -> None:
    change_json(Path(given["model"]) / "config.json", hidden_dropout_prob=0.3)


def other_versions(given: dict[str, Any], patch: Patch) -> None:
    version = claims.record.package_version
    patch.setattr(claims.record, "package_version", lambda name: "1.2.3" if name == "transformers" else version(name))


def two_processes(given: dict[str, Any], patch: Patch) -> None:
    patch.setattr(claims, "process_count", lambda: 2)


def another_device(given: dict[str, Any], patch: Patch) -> None:
    here = claims.environment_here
    patch.setattr(claims, "environment_here", lambda: here() | {"device": "cuda"})


def other_threads(given: dict[str, Any], patch: Patch) -> None:
    patch.setattr(torch, "get_num_threads", lambda: 3)


def other_arithmetic(given: dict[str, Any], patch: Patch) -> None:
    patch.setenv("MKL_CBWR", "COMPATIBLE")


REFUSED = {
    other_tokenizer: "begun with other tokenizer files of",
    other_settings: "begun with other settings in config.json of",
    other_versions: "begun with transformers .*, and here it is 1.2.3. Go back to that, or choose another --out",
    two_processes: "begun with processes 1, and here it is 2",
    another_device: "begun with device cpu, and here it is cuda",
}
RECORDED = {other_threads: ("threads", 3), other_arithmetic: ("variables", "COMPATIBLE")}
Change = Callable[[dict[str, Any], Patch], None]


@pytest.mark.long
@pytest.mark.parametrize("change", REFUSED)
def test_what_would_mix_two_runs_is_refused(
    change: Change, given: dict[str, Any], whole: Record, tmp_path: Path, monkeypatch: Patch
) -> None:
    shutil.copytree(given["model"], tmp_path / "kept")
    try:
        with monkeypatch.context() as patch, pytest.raises(InputError, match=REFUSED[change]):
            change(given, patch)
            trainflat.run(given, out=tmp_path / "runs")
    finally:  # the other tests have it too
        shutil.rmtree(given["model"])
        shutil.move(tmp_path / "kept", given["model"])
    assert trainflat.run(given, out=tmp_path / "runs").digest == whole.digest


@pytest.mark.parametrize("change", RECORDED)
def test_what_rounds_otherwise_is_said_and_recorded(
    change: Change, given: dict[str, Any], tmp_path: Path, monkeypatch: Patch
) -> None:
    key, value = RECORDED[change]
    said: list[str] = []
    watcher = trainflat.core.progress.Progress()
    monkeypatch.setattr(watcher, "say", said.append)
    change(given, monkeypatch)
    found = trainflat.run(given, out=tmp_path / "runs", progress=watcher)
    assert [line for line in said if f"begun with {key}" in line]
    assert str(value) in str(found.environments[1][key])
    assert str(value) not in str(found.environments[0][key])
    assert Record.load(folder_of(given, tmp_path)) == found


def test_folders_of_older_versions_claim_less_and_go_on(given: dict[str, Any], tmp_path: Path) -> None:
    path = folder_of(given, tmp_path) / "claim.json"
    claim = json.loads(path.read_text())
    path.write_text(json.dumps({key: claim[key] for key in ("recipe", "data", "model")}))
    assert trainflat.run(given, out=tmp_path / "runs").environments == []


@pytest.mark.parametrize("what", ["folder", "stage"])
def test_a_folder_that_is_deleted_while_its_last_stage_is_measured_is_no_finished_run(
    what: str, given: dict[str, Any], tmp_path: Path, monkeypatch: Patch
) -> None:
    folder, measure = folder_of(given, tmp_path), job.measure

    def deleting(workspace: Any, produced: Any, *others: Any) -> Any:
        if produced.plan.sparsity:
            shutil.rmtree(folder if what == "folder" else folder / "stages" / "dense")
        return measure(workspace, produced, *others)

    monkeypatch.setattr(job, "measure", deleting)
    with pytest.raises(InputError, match="deleted"):
        trainflat.run(given, out=tmp_path / "runs")
    assert not (folder / "record.json").exists()
    assert list((tmp_path / "runs").iterdir()) == ([] if what == "folder" else [folder])


@pytest.mark.long
def test_a_ticket_goes_on_with_the_masks_that_it_was_begun_with(tmp_path: Path, monkeypatch: Patch) -> None:
    made = prepared(tmp_path)
    found = [trainflat.run(made, out=tmp_path / "found", overrides={"seed": seed}) for seed in (0, 1)]
    source = next((tmp_path / "found").glob(f"*{found[0].recipe_hash[:10]}"))
    other = next((tmp_path / "found").glob(f"*{found[1].recipe_hash[:10]}"))
    ticket = made | {"protocol": {"name": "ticket", "sparsity": 0.5, "run": str(source)}}
    interrupt(ticket, tmp_path, monkeypatch)
    source.rename(tmp_path / "kept")
    other.rename(source)
    with pytest.raises(InputError, match="begun with other masks in"):
        trainflat.run(ticket, out=tmp_path / "runs")
