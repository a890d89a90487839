"""Folders in a form of our own fail loudly where this package is not imported: nothing answers from random weights."""

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.families import write
from tests.support.fresh import run_fresh
from trainflat.commands.export import export
from trainflat.core.errors import InputError
from trainflat.export import EXPORTERS
from trainflat.pruning import MagnitudePruner
from trainflat.quantization import Q8BERT, quantize_dynamic
from trainflat.quantization.layout import OWN_WEIGHTS

# Tries every way into every folder, and prints what came of it.
PLAIN = """
import json, sys, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import torch, transformers as t
WAYS = {
    "pipeline": lambda f: t.pipeline("text-classification", model=f, tokenizer=f),
    "pipeline without a task": lambda f: t.pipeline(model=f),
    "pipeline of float32": lambda f: t.pipeline("text-classification", model=f, dtype=torch.float32),
    "head": lambda f: t.AutoModelForSequenceClassification.from_pretrained(f),
    "encoder": lambda f: t.AutoModel.from_pretrained(f),
    "class": lambda f: t.BertForSequenceClassification.from_pretrained(f),
    "words": lambda f: t.AutoModelForMaskedLM.from_pretrained(f),
    "sizes": lambda f: t.AutoModel.from_pretrained(f, ignore_mismatched_sizes=True),
    "pickle": lambda f: t.AutoModel.from_pretrained(f, use_safetensors=False),
    "safetensors": lambda f: t.AutoModel.from_pretrained(f, use_safetensors=True),
    "variant": lambda f: t.AutoModel.from_pretrained(f, variant="trainflat"),
    "other config": lambda f: t.AutoModel.from_pretrained(f, config=t.BertConfig()),
}
found = {}
for folder in sys.argv[1:]:
    for name, way in WAYS.items():
        try:
            way(folder)
            found[f"{folder} {name}"] = "loaded"
        except Exception as error:
            found[f"{folder} {name}"] = f"{type(error).__name__}: {error}"[:300]
assert "trainflat" not in sys.modules
print(json.dumps(found))
"""


def plainly(*folders: Path) -> dict[str, str]:
    done = run_fresh(*folders, code=PLAIN)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def pruned() -> Any:
    model = tiny_bert().eval()
    MagnitudePruner(model, sparsity=0.5).prune()
    return model


def converted() -> Any:
    model = tiny_bert().train()
    quantizer = Q8BERT(model).attach()
    model(torch.ones(2, 4, dtype=torch.long))
    quantizer.update()
    return quantizer.convert()


SAVED = {
    "saved int8": lambda: quantize_dynamic(pruned()),
    "int8 with tables and head": lambda: quantize_dynamic(pruned(), embeddings=True, head=True),
    "encoder of int8": lambda: quantize_dynamic(pruned()).base_model,
    "q8bert": converted,
}


def own_folders(place: Path, formats: Any) -> list[Path]:
    source = write(place / "dense", pruned())
    for name in formats:
        export(source, name, place / name)
    for name, make in SAVED.items():
        shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        make().save_pretrained(place / name)
    return [place / name for name in (*formats, *SAVED)]


@pytest.mark.long
@pytest.mark.parametrize(
    "formats", [("sparse", "int8"), pytest.param(tuple(EXPORTERS.keys()), marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_nothing_answers_from_random_weights(tmp_path: Path, formats: Any) -> None:
    folders = own_folders(tmp_path, formats)
    found = plainly(tmp_path / "dense", *folders)
    loaded = [name.removeprefix(f"{tmp_path}/") for name, what in found.items() if what == "loaded"]
    assert loaded and all(name.startswith("dense ") for name in loaded), loaded
    assert "no file named model.safetensors" in found[f"{folders[0]} head"]


def test_they_load_here_and_are_saved_again_where_they_belong(tmp_path: Path) -> None:
    for folder in own_folders(tmp_path, ("sparse", "int8")):
        model = trainflat.load(folder)
        kind = type(model)
        again = kind.from_pretrained(folder).eval()
        again.save_pretrained(tmp_path / f"{folder.name} again")
        third = trainflat.load(tmp_path / f"{folder.name} again")
        states = [one.state_dict() for one in (model, again, third)]
        assert all(torch.equal(states[0][name], s[name]) for s in states[1:] for name in states[0])
        weights = {path.name for path in (tmp_path / f"{folder.name} again").glob("*.safetensors")}
        assert weights == ({"model.safetensors"} if folder.name == "sparse" else {OWN_WEIGHTS})


@pytest.mark.parametrize("name", ["sparse", "int8"])
def test_folders_of_before_are_read(tmp_path: Path, name: str) -> None:
    (folder,) = (one for one in own_folders(tmp_path, ("sparse", "int8")) if one.name == name)
    expected = trainflat.load(folder).state_dict()
    (folder / "manifest.json").unlink()
    (folder / OWN_WEIGHTS).rename(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]["weights"]
    (folder / "config.json").write_text(json.dumps(config))
    for model in (trainflat.load(folder), AutoModelForSequenceClassification.from_pretrained(folder)):
        assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_int8_is_not_saved_beside_other_weights(tmp_path: Path) -> None:
    tiny_bert().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"holds model\.safetensors, which transformers would load in place"):
        quantize_dynamic(tiny_bert()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="Leave it out, then call push_to_hub"):
        quantize_dynamic(tiny_bert()).save_pretrained(tmp_path / "new", push_to_hub=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_copy_saves_itself(tmp_path: Path) -> None:
    small = quantize_dynamic(tiny_bert())
    for number, one in enumerate((copy.deepcopy(small), pickle.loads(pickle.dumps(small)))):
        one.bert.pooler.dense.scale.fill_(0.5)
        one.save_pretrained(tmp_path / str(number))
        assert load_file(tmp_path / str(number) / OWN_WEIGHTS)["bert.pooler.dense.scale"].eq(0.5).all()
    assert not small.bert.pooler.dense.scale.eq(0.5).all()
