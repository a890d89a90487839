"""Runs a recipe, kills it at chosen points, starts it again, and compares the end with an undisturbed run's."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

from tests.support.families import config, write
from tests.support.fresh import run_fresh
from tests.support.runs import sentences
from trainflat.core.files import verify
from trainflat.pruning import Masks

TRAINER, STORE = "trainflat.training.trainer:FlatTrainer", "trainflat.protocols.store"


def kill(tmp_path: Path, optimizer: dict[str, Any], points: list[Any], **options: Any) -> list[dict[str, Any]]:
    """What the driver says: of an undisturbed run, then of each point; a list of points strikes one run in turn."""
    torch.manual_seed(0)
    model = write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    spec = {"model": str(model), "train_file": str(sentences(tmp_path, "classification")), "optimizer": optimizer}
    spec |= {"out": str(tmp_path / "runs"), "points": [("never", 0), *points], **options}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = run_fresh(tmp_path / "spec.json", module="tests.support.kill_driver")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    faults = [line["fault"] for line in lines if "fault" in line]
    assert not faults, faults
    return lines


def assert_unharmed(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    whole, *killed = lines
    assert whole["status"] == 0
    for line in killed:
        assert line["struck"] or line["point"][0] == "after", line  # a point that is never reached tests nothing
        assert line["digest"] == whole["digest"], line
    for run in (tmp_path / "runs").glob("*/*"):
        for stage in (run / "stages").iterdir():
            verify(stage)
            if (stage / "masks.safetensors").exists():
                Masks.load(stage / "masks.safetensors")
        assert not list(run.rglob("*.tmp"))
        assert not (run / "work").exists()
