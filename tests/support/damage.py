"""Damages files of runs, and tells whether that was seen and made good."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.commands import folder_of
from tests.support.runs import own_files, recipe


def rewinding(place: Path) -> dict[str, Any]:
    """Rewinds to a step, so that there is a snapshot, and evaluates so often that the best checkpoint comes early."""
    made = recipe(place / "model", own_files(place), epochs=2, evaluate_every=2)
    made["training"] |= {"optimizer": {"name": "adamw", "lr": 1e-2}}
    return made | {
        "protocol": {"name": "iterative", "sparsities": [0.5], "rewind": 2},
        "evaluation": {"latency": {"batches": []}},
    }


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def copied(source: Path, given: dict[str, Any], tmp_path: Path) -> Path:
    shutil.copytree(source, tmp_path / "runs")
    return folder_of(given, tmp_path)


def folder_of_whole(whole: Path) -> Path:
    return next(whole.glob("*"))


def digest(folder: Path) -> str:
    text: str = json.loads(
        (folder_of_whole(folder) if folder.name == "whole" else folder).joinpath("record.json").read_text()
    )["digest"]
    return text


def assert_refused(answer: tuple[int, str], *pieces: str) -> None:
    code, line = answer
    assert code == 2
    for piece in pieces:
        assert piece in line
