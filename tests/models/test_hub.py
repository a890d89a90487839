"""A name that only the hub could know is decided within seconds, and what cannot run here does not pass as ready."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from transformers import BertForSequenceClassification, BertModel

from tests.support.families import config, write
from tests.support.hub_server import hub_of
from tests.support.runs import own_files, recipe
from trainflat.cli import main as cli
from trainflat.core import hub
from trainflat.core.errors import DamagedFile, InputError
from trainflat.models import load_encoder, load_on_meta, weights_sha256
from trainflat.models.locate import NotHere
from trainflat.tasks.base import Head

TWO = Head("classification", ("no", "yes"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("hub")
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return recipe(folder / "model", own_files(folder))


@pytest.mark.parametrize(("model", "move"), [("minilmm", "Did you mean 'minilm'?"), ("some/encoder", "or `minilm`")])
@pytest.mark.parametrize("key", ["model", "training.distillation"])
@pytest.mark.parametrize("word", ["check", "run"])
@pytest.mark.usefixtures("silent_hub")
def test_neither_passes_as_ready(  # noqa: PLR0917
    word: str,
    key: str,
    model: str,
    move: str,
    given: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(given))
    monkeypatch.setattr(sys, "argv", ["trainflat", word, str(path), "--set", f"{key}={model}", "--out", "runs"])
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trainflat:")]
    assert ended.value.code == 2 and len(said) == 1
    assert model in said[0] and move in said[0] and "does not answer" in said[0]
    assert time.monotonic() - started < 20  # the hub's own client tries again for half a minute
    assert not (tmp_path / "runs").exists()


def test_what_the_cache_holds_is_used_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_hub: None
) -> None:
    cached = tmp_path / "models--some--encoder"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("abc")
    write(cached / "snapshots/abc", BertModel(config("Bert")))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_encoder("some/encoder", TWO).name == "some/encoder"
    shutil.rmtree(cached / "refs")
    with pytest.raises(NotHere):
        load_encoder("some/encoder", TWO)


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, cache: Path, folders: Any, pulls: Any = None) -> Iterator[list[str]]:
    """A hub that has the folders; what is downloaded lies in ``cache``."""
    files_url = "/{repo_id}/resolve/{revision}/{filename}"
    with hub_of(folders, pulls) as (address, asked):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + files_url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        hub.hub_answers.cache_clear()
        try:
            yield asked
        finally:
            hub.hub_answers.cache_clear()


def test_a_model_of_the_hub_is_downloaded_and_read_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", BertModel(config("Bert")))
    (folder / "pytorch_model.bin").write_bytes(b"no pickle is asked for")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"nor what lies in a folder")
    with answering(monkeypatch, tmp_path / "cache", {"some/encoder": folder}) as asked:
        found = load_encoder("some/encoder", TWO)
        assert load_on_meta("some/encoder", TWO)
    assert weights_sha256(found.model) == weights_sha256(load_encoder(str(folder), TWO).model)
    assert not [one for one in asked if ".bin" in one or "onnx" in one]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_sha256(load_encoder("some/encoder", TWO).model) == weights_sha256(found.model)
    json_of = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(json_of | {"num_hidden_layers": 1_000_000}))
    with (
        answering(monkeypatch, tmp_path / "other", {"some/encoder": folder}),
        pytest.raises(DamagedFile, match="1000000 num_hidden_layers"),
    ):
        load_encoder("some/encoder", TWO)


def test_what_the_hub_has_not_or_as_a_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path / "whole", BertModel(config("Bert")))
    pickle = shutil.copytree(whole, tmp_path / "pickle")
    (pickle / "model.safetensors").rename(pickle / "pytorch_model.bin")
    with answering(monkeypatch, tmp_path / "cache", {"a/pickle": pickle}):
        for name, text in (("a/pickle", "no safetensors on the hub"), ("a/typo", "nor on the hub. Give a folder")):
            with pytest.raises(InputError, match=text) as refusal:
                load_encoder(name, TWO)
            assert "\n" not in str(refusal.value)
        with pytest.raises(InputError, match="Did you mean 'minilm'"):
            load_on_meta("minilmm", TWO)
    with answering(monkeypatch, tmp_path / "cache2", {"a/pickle": pickle}, {"a/pickle": whole}):
        assert load_encoder("a/pickle", TWO).name == "a/pickle"
