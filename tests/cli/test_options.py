"""Options of the task have one spelling in every command, also beside the options of a format."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.families import config, write
from trainflat.cli.main import main
from trainflat.commands import check as checking
from trainflat.commands import diagnose as diagnosing
from trainflat.commands import export as exporting
from trainflat.commands import run as running
from trainflat.commands.bench import compare as comparing
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import read_json
from trainflat.core.registry import Registry
from trainflat.recipe import Recipe, load_recipe, named_sections

FILES = ("train_file=rows.csv", "text=review", "label=stars")
COMMANDS = {
    "run": ("run", "demo-sam"),
    "check": ("check", "demo-sam"),
    "diagnose": ("diagnose", "model"),
    "export": ("export", "model", "--to", "onnx-int8", "--set", "bits=7"),
    "bench": ("bench", "model"),
}


class Reached(Exception):
    """What a command works with was reached."""


@pytest.mark.parametrize("prefix", ["", "task."], ids=["short", "full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_the_task_the_same_way(command: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*given: Any, task: Any = None, **options: Any) -> None:
        recipe = next((one for one in given if isinstance(one, Recipe)), None)
        section = recipe.task.section() if recipe else task if task is not None else given[1]
        raise Reached(section)

    monkeypatch.setattr(running, "run", reached)
    monkeypatch.setattr(checking, "plan", lambda r, **o: reached(load_recipe(r, o["overrides"])))
    monkeypatch.setattr(diagnosing, "diagnose", reached)
    monkeypatch.setattr(exporting, "export", reached)
    monkeypatch.setattr(comparing, "compare", reached)
    options = [piece for one in FILES for piece in ("--set", prefix + one)]
    monkeypatch.setattr(sys, "argv", ["trainflat", *COMMANDS[command], "--task", "files", *options])
    with pytest.raises(Reached) as found:
        main()
    wanted = {"name": "files", "train_file": "rows.csv", "text": "review", "label": "stars"}
    assert wanted.items() <= found.value.args[0].items()


def test_an_export_is_calibrated_and_scored_on_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import BertForSequenceClassification

    monkeypatch.chdir(tmp_path)
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    write(tmp_path / "model", BertForSequenceClassification(config("Bert", num_hidden_layers=1, **labels)).eval())
    lines = [f"a {word} day number {n},{word}" for n in range(20) for word in ("good", "bad")]
    Path("rows.csv").write_text("\n".join(["review,stars", *lines]), encoding="utf8")
    options = [piece for one in FILES for piece in ("--set", one)]
    monkeypatch.setattr(
        sys, "argv", ["trainflat", "export", "model", "--to", "int8", "--task", "files", *options, "--set", "head=true"]
    )
    main()
    checked = read_json(tmp_path / "model-int8" / exporting.CHECKED)
    assert checked["metric"] == "accuracy" and checked["options"]["head"] is True
    assert "accuracy: " in capsys.readouterr().out


class _Loud:
    def __init__(self, pitch: int, times: int = 1) -> None: ...


class _Quiet:
    def __init__(self, times: int = 1, rest: int = 0) -> None: ...


VOICES: Registry[Any] = Registry("voice", loud=_Loud, quiet=_Quiet)
ECHOES: Registry[Any] = Registry("echo", loud=_Loud, quiet=_Quiet)


@pytest.mark.parametrize(
    ("given", "voice", "echo", "kind", "told"),
    [
        (["times=2"], "quiet", "quiet", InputError, "Write --set voice.times=... or --set echo.times=..."),
        (["rest=2"], "quiet", None, None, {"voice": {"name": "quiet", "rest": 2}, "echo": None}),
        (["echo.times=2"], "quiet", "quiet", None, {"voice": {"name": "quiet"}, "echo": {"name": "quiet", "times": 2}}),
        (["pitch=2"], "quiet", None, InputError, "--set pitch is an option of the echo, and none is named"),
        (["echo.times=2"], "quiet", None, InputError, "none is named. Add --echo NAME."),
        (["tims=2"], "quiet", "quiet", UnknownName, "no option of voice 'quiet' or echo 'quiet' is called 'tims'"),
        (["voice.name=loud"], "quiet", None, UnknownName, "no option of voice 'quiet' is called 'name'"),
        ([], "loud", None, InputError, "voice 'loud' needs pitch. Add --set pitch=..."),
        (["pitch"], "loud", None, InputError, "--set takes key=value"),
        (["rest=1"], "louder", None, UnknownName, "no voice is called 'louder'"),
    ],
)  # fmt: skip
def test_whose_an_option_is(given: list[str], voice: str, echo: str | None, kind: Any, told: Any) -> None:
    def call() -> dict[str, Any]:
        return named_sections(given, voice=(VOICES, voice), echo=(ECHOES, echo))

    if kind is None:
        assert call() == told
        return
    with pytest.raises(kind) as refused:
        call()
    assert told in str(refused.value)
