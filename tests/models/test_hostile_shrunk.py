"""Folders of shrunk models whose config anybody may have written: refused in one line, before anything is allocated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trainflat
from tests.support.shrunk import folder_of
from trainflat.commands.export import _source
from trainflat.core.errors import InputError
from trainflat.models import load_encoder, load_on_meta
from trainflat.tasks.base import Head

HEAD = Head("classification", ("LABEL_0", "LABEL_1"))
READERS: dict[str, Callable[[Path], Any]] = {
    "load": trainflat.load,
    "run": lambda folder: load_encoder(str(folder), HEAD),
    "teacher": lambda folder: load_encoder(str(folder), HEAD, fine_tuned=True),
    "check": lambda folder: load_on_meta(str(folder), HEAD),
    "export": lambda folder: _source(folder, None),
}
WEIGHTS = "model.safetensors"
LARGE = 2**20


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sources")
    return {family: folder_of(place / family, family) for family in ("Bert", "MPNet")}


def layers(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda config: change(config["per_layer_config"])


# What is wrong, and what the one line names of it.
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no mapping": (lambda c: c.update(per_layer_config=[1]), "per_layer_config is not a mapping"),
    "no widths": (layers(lambda own: own.update({"0": 7})), "per_layer_config is not a mapping"),
    "a negative width": (layers(lambda own: own["0"].update(intermediate_size=-1)), "intermediate_size -1"),
    "a width that is none": (layers(lambda own: own["0"].update(head_dim=True)), "head_dim True"),
    "heads of nothing": (layers(lambda own: own["0"].update(head_dim=0)), "head_dim 0"),
    "an absurd width": (layers(lambda own: own["0"].update(intermediate_size=LARGE)), f"a width of {LARGE}"),
    "absurdly many heads": (layers(lambda own: own["0"].update(num_attention_heads=LARGE)), "asks for a width of"),
    "a field of another version": (
        layers(lambda own: own["0"].update(num_key_value_heads=2)),
        "layer 0 of per_layer_config has 'num_key_value_heads', which this version cannot build",
    ),
    "an unknown sub-layer": (layers(lambda own: own["2"].update(skip=["moe"])), "skips ['moe']"),
    "a layer that is not there": (layers(lambda own: own.update({"9": {}})), "per_layer_config has a layer 9"),
    "wider than it was": (lambda c: c.update(hidden_size=9), "hidden_size is 9, dense_hidden_size 8"),
    "no dense width": (lambda c: c.pop("dense_hidden_size"), "dense_hidden_size None"),
    "an absurd dense width": (lambda c: c.update(dense_hidden_size=LARGE * 2), "which no encoder has"),
    "another architecture": (lambda c: c.update(model_type="trainflat-llama"), "model"),
}
MISFITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {  # of the weights, which `check` does not read
    "fewer units": (
        layers(lambda own: own["0"].update(intermediate_size=3)),
        "encoder.layer.0.intermediate.dense.bias has the shape [7], its config says [3]",
    ),
    "another width": (lambda c: c.update(hidden_size=6), "bert.embeddings"),
    "heads where there are none": (layers(lambda own: own["1"].pop("num_attention_heads")), "layer.1.attention"),
    "none where there are some": (layers(lambda own: own["0"].update(num_attention_heads=0)), "layer.0.attention"),
    "skipped where it is not": (layers(lambda own: own["0"].update(skip=["mlp"])), "layer.0"),
    "a class of none": (lambda c: c.update(architectures=["ShrunkGPT2Model"]), "architecture"),
    "a config for a class": (lambda c: c.update(architectures=["ShrunkBertConfig"]), "architecture"),
    "a large dense width": (lambda c: c.update(dense_hidden_size=LARGE), ""),
}
TEACHER_ONLY = {"a class of none", "a config for a class"}  # tasks choose the class themselves


def damaged(source: Path, place: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    folder = Path(shutil.copytree(source, place))
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refusal_of(reader: Callable[[Path], Any], folder: Path) -> str:
    with pytest.raises(InputError) as refusal:
        reader(folder)
    text = str(refusal.value)
    assert "\n" not in text and len(text) < 700
    return text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_config_that_describes_nothing(sources: dict[str, Path], tmp_path: Path, damage: str) -> None:
    change, named = DAMAGES[damage]
    folder = damaged(sources["Bert"], tmp_path / "model", change)
    for reader in READERS.values():
        assert named in refusal_of(reader, folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", MISFITS)
def test_a_config_that_does_not_fit_its_weights(sources: dict[str, Path], tmp_path: Path, damage: str) -> None:
    change, named = MISFITS[damage]
    folder = damaged(sources["Bert"], tmp_path / "model", change)
    assert named in refusal_of(trainflat.load, folder)
    for name in () if damage in TEACHER_ONLY else ("run", "teacher"):
        refusal_of(READERS[name], folder)


@pytest.mark.parametrize("columns", [[0], [0, 5], "01", [True, False], {}])
def test_positions_that_no_head_has(sources: dict[str, Path], tmp_path: Path, columns: Any) -> None:
    folder = damaged(sources["MPNet"], tmp_path / "model", lambda c: c.update(position_heads={"0": columns}))
    assert "position_heads" in refusal_of(trainflat.load, folder)


def test_a_state_that_does_not_fit_names_its_first_misfit(sources: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sources["Bert"], tmp_path / "model"))
    found = load_file(folder / WEIGHTS)
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file({**found, name: torch.ones(3, 3)}, folder / WEIGHTS, {"format": "pt"})
    assert f"{name} has the shape [3, 3], its config says [7, 7]" in refusal_of(trainflat.load, folder)
    save_file({key: one for key, one in found.items() if key != name}, folder / WEIGHTS, {"format": "pt"})
    assert f"no weights that fit {name}" in refusal_of(trainflat.load, folder)


def test_code_beside_the_weights_is_not_run(sources: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sources["Bert"], tmp_path / "model"))
    (folder / "modeling_trainflat.py").write_text("raise SystemExit('run')")
    for reader in READERS.values():
        reader(folder)
