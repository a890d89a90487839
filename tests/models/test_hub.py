"""A name that only the hub could know is decided within seconds, and what cannot run here does not pass as ready."""

import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from transformers import BertForSequenceClassification, BertModel

from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.cli import main as cli
from trainflat.models import load_encoder
from trainflat.models.hub import NotHere
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
