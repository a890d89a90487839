"""Calls the command line in this process, and reads what it says."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainflat
from trainflat.cli import main as cli

Command = Callable[[dict[str, Any]], tuple[int, str]]


def command(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and last line of standard error of ``trainflat run``."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(given))
    monkeypatch.setattr(sys, "argv", ["trainflat", "run", str(path), "--out", str(tmp_path / "runs")])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trainflat:")]
    assert len(errors) == (1 if code else 0), errors
    return code, errors[0] if errors else ""


def folder_of(given: dict[str, Any], tmp_path: Path) -> Path:
    return trainflat.plan(given, out=tmp_path / "runs").folder
