"""Whole runs on a user's own file: forty rows, a recipe of three short stages, and what must hold of the record."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from tests.support.families import WORDS
from trainflat.core.margins import GROUPS
from trainflat.core.progress import Progress
from trainflat.pruning import Masks
from trainflat.records.run import Record


def sentences(folder: Path, kind: str) -> Path:
    """Forty rows about flat minima, labelled by their first word or by how many words they have."""
    rows = []
    for i in range(40):
        words = [WORDS[(i * k + k) % len(WORDS)] for k in range(1, 3 + i % 6)]
        label: Any = {"classification": ["no", "yes"][i % 2], "regression": len(words) / 10}[kind]
        rows.append({"text": " ".join(words), "other": words[-1], "label": label})
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(model: Path, task: dict[str, Any], **options: Any) -> dict[str, Any]:
    training = {"epochs": 1, "batch_size": 8, "max_length": 16, "optimizer": {"name": "sam", "rho": 0.05, "lr": 1e-3}}
    return {
        "task": task,
        "model": str(model),
        "training": training | options,
        "protocol": {"name": "iterative", "sparsities": [0.5, 0.75]},
        "evaluation": {"latency": {"batches": [1], "lengths": [8], "repeats": 1}},
    }


def own_files(folder: Path, kind: str = "classification", **options: Any) -> dict[str, Any]:
    return {"name": "files", "train_file": str(sentences(folder, kind)), "text": "text", "label": "label", **options}


def assert_sound(record: Record, folder: Path) -> None:
    """Exact counts, zeros on disk where the masks say, denser contains sparser, files that others load."""
    run = next(folder.iterdir())
    before: Masks | None = None
    groups = GROUPS if record.data[record.task.split].rows >= GROUPS else 0
    for stage in record.stages:
        entries, zeros = (sum(getattr(m, key) for m in stage.matrices) for key in ("entries", "zeros"))
        assert zeros >= round(stage.target_sparsity * entries)
        if stage.target_sparsity:
            masks = Masks.load(run / "stages" / stage.name / "masks.safetensors")
            assert masks.zeros == round(stage.target_sparsity * entries)
            assert before is None or masks.issubset(before)
            before = masks
            loaded = AutoModel.from_pretrained(run / "stages" / stage.name, dtype=torch.float32)
            kept = sum(int((p == 0).sum()) for n, p in loaded.named_parameters() if any(m.endswith(n) for m in masks))
            assert kept >= masks.zeros * 0.9  # the head's matrices are not in the bare encoder
        assert len(stage.without) == groups
        assert stage.training is not None
        assert stage.training.passes == 2 * stage.training.steps
        assert all(math.isfinite(value) for scores in stage.scores.values() for value in scores.values())


class Saying(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
