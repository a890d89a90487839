"""Shrunk models are saved, and loaded again to the same bits in every way that people load models."""

import copy
import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

import trainflat
from tests.support.fresh import run_fresh
from tests.support.patterns import pattern
from tests.support.shrunk import ALL, IDS, answers, folder_of, ragged
from tests.support.tiny_families import logits, make
from trainflat.anatomy import FAMILIES, anatomy_of
from trainflat.core.registration import _SHRUNK, register
from trainflat.models import load_encoder
from trainflat.pruning import MagnitudePruner
from trainflat.pruning.structured import Kept, shrink
from trainflat.tasks.base import Head

IDS_TEXT = json.dumps(IDS)
HEAD = Head("classification", ("LABEL_0", "LABEL_1"))

# Loads each folder without trainflat, by the code beside the weights; saves it again, loads that, and prints the bits.
REMOTE = """
import json, sys, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import torch, transformers as t, transformers.dynamic_module_utils as d
d.HF_MODULES_CACHE = sys.argv[2]
found = {}
for folder in sys.argv[3:]:
    model = t.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    encoder = t.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    model.save_pretrained(folder + "-again")
    again = t.AutoModelForSequenceClassification.from_pretrained(folder + "-again", trust_remote_code=True).eval()
    with torch.no_grad():
        said = [one(input_ids=torch.tensor(json.loads(sys.argv[1]))) for one in (model, again, encoder)]
    assert torch.equal(said[0].logits, said[1].logits)
    assert said[2].last_hidden_state.shape[-1] == model.config.hidden_size
    found[folder] = said[0].logits.flatten().tolist()
assert "trainflat" not in sys.modules
print("\\n" + json.dumps(found))
"""

# The same once trainflat is imported, before or after transformers.
REGISTERED = """
import json, sys
sys.modules.pop("trainflat", None)
import trainflat, torch, transformers as t
found = {}
for folder in sys.argv[2:]:
    ways = (t.AutoModelForSequenceClassification.from_pretrained(folder), trainflat.load(folder))
    with torch.no_grad():
        ids = torch.tensor(json.loads(sys.argv[1]))
        found[folder] = [one.eval()(input_ids=ids).logits.flatten().tolist() for one in ways]
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("shrunk") / "Bert")


def printed(code: str, *arguments: str | Path) -> Any:
    done = run_fresh(*arguments, code=code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("families", [("Bert",), pytest.param(ALL, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_a_fresh_process_reads_the_same_bits(tmp_path: Path, families: tuple[str, ...]) -> None:
    folders = [folder_of(tmp_path / family, family) for family in families]
    expected = {str(one): answers(ragged(one.name)).flatten().tolist() for one in folders}
    assert printed(REMOTE, IDS_TEXT, tmp_path / "modules", *folders) == expected
    assert printed(REGISTERED, IDS_TEXT, *folders) == {name: [one, one] for name, one in expected.items()}
    for one in folders:
        assert torch.equal(answers(trainflat.load(f"{one}-again")), answers(ragged(one.name)))


@pytest.mark.parametrize("name", ["vit", "deberta-v2 with its own positions"])
def test_any_pattern_is_read_again(tmp_path: Path, name: str) -> None:
    model = make(name)
    small = shrink(model, pattern(model, 5, 0.6))
    small.save_pretrained(tmp_path)
    for one in (trainflat.load(tmp_path), type(small).from_pretrained(tmp_path).eval()):
        assert torch.equal(logits(one), logits(small))


def test_a_copy_a_pickle_and_a_state_are_the_same(folder: Path) -> None:
    small = trainflat.load(folder)
    new = type(small)(small.config)
    new.load_state_dict(small.state_dict())
    for one in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), new.eval()):
        assert torch.equal(answers(one), answers(small))


def test_all_that_people_do_with_a_model(folder: Path, tmp_path: Path) -> None:
    small = trainflat.load(folder)
    classify = pipeline("text-classification", model=str(folder), top_k=None)
    [scores] = classify(["a flat minimum"])
    assert {one["label"] for one in scores} == {"LABEL_0", "LABEL_1"}
    rows = [{"input_ids": ids, "labels": i} for i, ids in enumerate(IDS)]
    arguments = TrainingArguments(tmp_path, max_steps=1, learning_rate=0.1, report_to="none", use_cpu=True)
    Trainer(small, arguments, train_dataset=rows).train()  # type: ignore[arg-type]  # a list is a data set
    trained = answers(small.eval())
    assert not torch.equal(trained, answers(trainflat.load(folder)))
    small.save_pretrained(tmp_path / "trained")
    assert torch.equal(answers(trainflat.load(tmp_path / "trained")), trained)
    MagnitudePruner(small, sparsity=0.5).prune()
    assert torch.equal(answers(small), answers(copy.deepcopy(small)))
    smaller = shrink(small, pattern(small, 2, 0.7))
    smaller.save_pretrained(tmp_path / "smaller")
    assert torch.equal(answers(trainflat.load(tmp_path / "smaller")), answers(smaller))


@pytest.mark.long  # sentence-transformers is imported for five seconds
def test_head_mask_is_refused_where_transformers_would_ignore_it(folder: Path) -> None:
    small, ids = trainflat.load(folder), torch.tensor(IDS)
    with pytest.raises(ValueError, match=r"head_mask is ignored by Shrunk.*use trainflat\.pruning\.structured\.shrink"):
        small(ids, head_mask=torch.zeros(2, 2))
    assert small(ids, head_mask=None).logits.isfinite().all()


def test_sentence_transformers_sees_the_real_width(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.models")
    inner = modules.Transformer(str(folder))
    width = trainflat.load(folder).config.hidden_size
    model = library.SentenceTransformer(modules=[inner, modules.Pooling(width)], device="cpu")
    assert model.encode(["a flat minimum"]).shape == (1, width) and width == 7


def test_a_recipe_starts_from_it_and_learns_from_it(folder: Path) -> None:
    encoder = load_encoder(str(folder), HEAD, fine_tuned=True)
    assert torch.equal(answers(encoder.model.eval()), answers(trainflat.load(folder)))
    start = load_encoder(str(folder), Head("spans"))
    assert type(start.model).__name__ == "ShrunkBertForQuestionAnswering"
    found = anatomy_of(start.model).layers
    assert [(one.attention.heads, one.feed_forward.output.inputs) for one in found] == [(2, 7), (0, 0), (0, 9)]
    first = load_encoder(str(folder), HEAD, layers=1).model
    assert first.config.per_layer_config == {"0": {"intermediate_size": 7}}
    whole = start.model.state_dict()
    assert all(torch.equal(one, whole[key]) for key, one in first.state_dict().items() if "encoder" in key)


PLAIN = """
import json, sys, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import transformers as t
WAYS = {
    "pipeline": lambda f: t.pipeline("text-classification", model=f, tokenizer=f),
    "head": lambda f: t.AutoModelForSequenceClassification.from_pretrained(f),
    "encoder": lambda f: t.AutoModel.from_pretrained(f, ignore_mismatched_sizes=True),
    "class": lambda f: t.BertForSequenceClassification.from_pretrained(f),
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
print("\\n" + json.dumps(found))
"""


@pytest.mark.long
def test_without_trainflat_and_trust_nothing_answers_from_random_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make("bert").float()
    anatomy = anatomy_of(model)
    folders = [folder]
    sizes = [unit for kind in ("query-key", "value-output") for unit in anatomy.units(f"{kind} dimension")]
    gone = {kind: anatomy.units(kind)[:1] for kind in ("attention sub-layer", "feed-forward sub-layer", "head")}
    gone |= {"hidden dimension": anatomy.units("hidden dimension")[:3]}  # so that the heads divide the width
    gone |= {"size of heads": [unit for unit in sizes if unit.index % 4 == 0]}
    for kind, units in gone.items():
        small = shrink(model, Kept.all(anatomy).without(units))
        assert small.config.model_type == "trainflat-bert"
        small.save_pretrained(tmp_path / kind)
        folders.append(tmp_path / kind)
    found = printed(PLAIN, *folders)
    assert not [name for name, what in found.items() if what == "loaded"]
    assert "contains custom code" in found[f"{folder} head"]


def test_every_architecture_is_registered() -> None:
    assert set(_SHRUNK) == set(FAMILIES)
    for kind, name in _SHRUNK.items():
        assert getattr(transformers, name).model_type == kind


def test_the_hook_enters_the_classes_when_transformers_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.auto import configuration_auto as tables

    monkeypatch.delitem(sys.modules, tables.__name__)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    register()
    again = importlib.import_module(tables.__name__)
    assert again is not tables and "trainflat-mpnet" in again.CONFIG_MAPPING
    assert again.CONFIG_MAPPING["trainflat-mpnet"].model_type == "trainflat-mpnet"
    assert not any(getattr(finder, "host", "") == tables.__name__ for finder in sys.meta_path)


def test_the_encoder_of_a_head_is_loaded_alone(folder: Path) -> None:
    encoder = transformers.AutoModel.from_pretrained(folder)
    expected = AutoModelForSequenceClassification.from_pretrained(folder).bert
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name])
    assert not [one for one in encoder.modules() if isinstance(one, nn.Linear) and 0 in one.weight.shape]
