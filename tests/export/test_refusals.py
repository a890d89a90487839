"""Sparse folders and others that are not what they should be: refused in one line, whoever reads them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.exports import pruned, same_model
from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import load_tensors, save_tensors, seal
from trainflat.export import save_sparse
from trainflat.export.packed import INDEX, SCALES, SHAPE, VALUES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_sparse(pruned(tiny_bert()), tmp_path / "sparse", values="int8")


NAME = "bert.encoder.layer.0.output.dense."
WRONG = {
    "no index": ({NAME + INDEX: None}, "lacks its sparse_index"),
    "no shape": ({NAME + SHAPE: None}, "lacks its sparse_shape"),
    "a shape of three": ({NAME + SHAPE: torch.tensor([16, 32, 1])}, "lacks its sparse_shape"),
    "another shape": ({NAME + SHAPE: torch.tensor([32, 16])}, "scales that do not fit"),
    "a vast shape": ({NAME + SHAPE: torch.tensor([2**40, 2**40])}, "has the shape"),
    "a shape below zero": ({NAME + SHAPE: torch.tensor([-1, -512])}, "has the shape"),
    "a matrix of 100 GB": (
        {NAME + SHAPE: torch.tensor([2**14, 2**21]), NAME + SCALES: torch.ones(2**14).bfloat16()},
        "its config says|bytes of memory",
    ),
    "too few values": ({NAME + VALUES: torch.ones(3, dtype=torch.int8)}, "do not keep 3 of 512|does not end"),
    "too many values": ({NAME + VALUES: torch.ones(600, dtype=torch.int8)}, "has values of shape"),
    "values of text": ({NAME + VALUES: torch.ones(51, dtype=torch.int64)}, "types that no sparse file has"),
    "scales of another row": ({NAME + SCALES: torch.ones(17).bfloat16()}, "scales that do not fit"),
    "scales that are no numbers": ({NAME + SCALES: torch.full((16,), torch.nan).bfloat16()}, "no numbers"),
    "no scales": ({NAME + SCALES: None}, "scales that do not fit"),
    "an index of floats": ({NAME + INDEX: torch.ones(64)}, "types that no sparse file has"),
    "an empty index": ({NAME + INDEX: torch.ones(0, dtype=torch.uint8)}, "an index of form -1"),
    "an unknown form": ({NAME + INDEX: torch.full((9,), 200, dtype=torch.uint8)}, "an index of form 200"),
    "a matrix of no model, of 256 GB": (
        {
            "other." + SHAPE: torch.tensor([2**18, 2**18]),
            "other." + VALUES: torch.ones(0),
            "other." + INDEX: torch.tensor([3], dtype=torch.uint8),
        },
        "bytes of memory",
    ),
    "twice": ({NAME + "weight": torch.ones(16, 32)}, "is there twice"),
    "a bias of another shape": ({NAME + "bias": torch.ones(17)}, r"has the shape \[17\], its config says \[16\]"),
    "no bias": ({NAME + "bias": None}, "no weights that fit .*bias"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit(folder: Path, changes: dict[str, Tensor | None], message: str) -> None:
    path = folder / "trainflat.safetensors"
    tensors = load_tensors(path)[0] | changes
    save_tensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    seal(folder)  # so that it is not its hash alone that tells
    with pytest.raises(DamagedFile, match=message) as refusal:
        trainflat.load(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)
    if "no weights" not in message:  # of a weight that is not there, transformers makes a new one, and says so
        with pytest.raises((DamagedFile, RuntimeError)):
            AutoModelForSequenceClassification.from_pretrained(folder)


def test_a_flipped_bit_is_refused_natively_too(folder: Path) -> None:
    content = bytearray((folder / "trainflat.safetensors").read_bytes())
    content[-3] ^= 4
    (folder / "trainflat.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"trainflat.safetensors differs from what was written"):
        AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "x" * 5000])
def test_a_manifest_names_nothing_outside(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "manifest.json").write_text(json.dumps({name: "0" * 64}))
    with pytest.raises(DamagedFile, match=r"manifest.json is not what was written"):
        trainflat.load(folder)


CONFIGS = {
    "many layers": ({"num_hidden_layers": 10**6}, "asks for 1000000 num_hidden_layers"),
    "many labels": ({"num_labels": 10**9}, "holds the number 1000000000"),
    "wide": ({"hidden_size": 2**19}, "its config says"),
    "no architecture": ({"architectures": ["os.system"]}, "names the architecture"),
    "one of another config": ({"architectures": ["RobertaModel"]}, "names the architecture"),
    "code of its own": ({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}, "describes no model"),
    "a form nobody reads": ({"quantization_config": {"quant_method": "trainflat-spares"}}, "'trainflat-sparse'"),
    "no form": ({"quantization_config": []}, "does not say how the weights are stored"),
}


@pytest.mark.parametrize(("changes", "message"), CONFIGS.values(), ids=CONFIGS)
def test_configs_that_make_no_model(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (folder / "evil.py").write_text("raise SystemExit('code of a folder was run')")
    seal(folder)
    with pytest.raises(InputError, match=message):
        trainflat.load(folder)


def test_a_config_of_a_model_that_no_memory_holds(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 2**20, "hidden_size": 2**14}
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    save_tensors(folder / "model.safetensors", {"other": torch.ones(1)})
    seal(folder)
    with pytest.raises(DamagedFile, match="bytes of memory"):
        trainflat.load(folder)


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="there is no model folder"):
        trainflat.load(tmp_path / "nowhere")
    (folder / "trainflat.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds its weights as a pickle"):
        trainflat.load(folder)


def test_shards_are_read_and_lie_in_the_folder(tmp_path: Path) -> None:
    model = tiny_bert()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and same_model(trainflat.load(tmp_path), model)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(DamagedFile, match="names files outside of its folder"):
        trainflat.load(tmp_path)


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_the_weights_keeps_nobody_waiting(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "trainflat.safetensors").unlink()
    os.mkfifo(folder / "trainflat.safetensors")
    with pytest.raises(DamagedFile, match=r"trainflat\.safetensors is no file"):
        trainflat.load(folder)


@settings(max_examples=20)
@given(st.binary(max_size=400))
def test_anything_in_place_of_the_weights(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    place = tmp_path_factory.mktemp("any")
    tiny_bert().config.save_pretrained(place)
    (place / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile):
        trainflat.load(place)
