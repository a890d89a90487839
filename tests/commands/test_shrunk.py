"""Commands take a folder of a shrunk model as any other: run from it and by it, diagnose, bench."""

from pathlib import Path
from typing import Any

import pytest
import torch

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from tests.support.shrunk import folder_of
from trainflat.commands.bench import compare as comparing
from trainflat.commands.bench.compare import compare
from trainflat.commands.diagnose import diagnose
from trainflat.core import timing
from trainflat.pruning import Masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    return folder_of(tmp_path_factory.mktemp("shrunk") / "small", **labels)


@pytest.fixture(scope="module")
def stages(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that starts from a shrunk model, is taught by it, and prunes half of what is left."""
    place = tmp_path_factory.mktemp("run")
    given: dict[str, Any] = recipe(folder, own_files(place), distillation={"teacher": str(folder)})
    given["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    given["evaluation"] = {"latency": {"batches": []}}
    trainflat.run(given, out=place / "runs")
    return next((place / "runs").iterdir()) / "stages"


@pytest.mark.long
def test_a_run_starts_from_it_and_is_taught_by_it(stages: Path, folder: Path) -> None:
    before, after = trainflat.load(folder), trainflat.load(stages / "sparsity-0.50")
    assert type(after) is type(before)
    assert after.config.per_layer_config == before.config.per_layer_config
    masks = Masks.load(stages / "sparsity-0.50" / "masks.safetensors")
    entries = sum(mask.numel() for mask in masks.values())
    assert masks.zeros == round(0.5 * entries)
    assert all((after.get_parameter(name)[~mask] == 0).all() for name, mask in masks.items())


@pytest.mark.slow
def test_its_flatness_is_measured(stages: Path, tmp_path: Path) -> None:
    measures = [{"name": "keskar", "space": "full"}, {"name": "gradient-norm"}]
    [found] = diagnose(stages / "dense", own_files(tmp_path), rows=16, measures=measures)
    assert [one.name for one in found.flatness] == ["keskar", "gradient-norm"]
    assert {one.part for one in found.sensitivity} >= {"layer 0", "layer 2", "query", "ffn_in", "pooler"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_time_is_measured(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SHORTEST_SAMPLE", 0.005)
    monkeypatch.setattr(comparing, "_PATIENCE", 0.0)
    torch.manual_seed(0)
    dense = trainflat.load(folder).__class__.__bases__[1](config("Bert"))
    found = compare([write(tmp_path / "dense", dense), folder], backends=("torch", "onnx"), lengths=[8], rounds=2)
    assert [one.model for one in found.variants] == ["dense"] * 2 + ["small"] * 2
    assert all(len(one.samples) == 2 for cell in found.cells for one in cell.timings)
