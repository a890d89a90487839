"""Every reader of model folders refuses what anybody may have put there, in one line and at once."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import trainflat
from tests.conftest import tiny_bert
from tests.support.families import FAMILIES, config, write
from trainflat.commands.bench.scores import Scored
from trainflat.commands.export import _source, as_named
from trainflat.core.errors import InputError, is_fault
from trainflat.core.files import seal
from trainflat.models import load_encoder, load_on_meta
from trainflat.models.loading import _auto
from trainflat.tasks.base import Head

HEAD = Head("classification", ("LABEL_0", "LABEL_1"))
TASK: Any = SimpleNamespace(head=HEAD, in_order=lambda names: TASK)
READERS: dict[str, Callable[[Path], Any]] = {
    "load": trainflat.load,
    "run": lambda folder: load_encoder(str(folder), HEAD),
    "teacher, diagnose, export of a task": lambda folder: load_encoder(str(folder), HEAD, fine_tuned=True),
    "check": lambda folder: load_on_meta(str(folder), HEAD),
    "export": lambda folder: _source(folder, None),
    "export of a task": lambda folder: _source(folder, as_named(TASK, folder)),
}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "model", tiny_bert())


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes((source / WEIGHTS).read_bytes())
    return Path(shutil.copytree(source, tmp_path / "model"))


def sealed(damage: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Damage after the folder was sealed."""

    def both(folder: Path) -> None:
        seal(folder)
        damage(folder)

    return both


def flip(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 4
    (folder / WEIGHTS).write_bytes(content)


def shorten(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def put(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def configured(**changes: Any) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file({name: t.contiguous() for name, t in found.items()}, folder / WEIGHTS, {"format": "pt"})

    return damage


def index(target: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        names = dict.fromkeys(load_file(folder / WEIGHTS), target)
        (folder / WEIGHTS).rename(folder / "other.safetensors")
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return damage


def twice(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"num_hidden_layers": 9,', 1))


def layer(found: dict[str, Any]) -> None:
    found |= {n.replace("layer.0.", "layer.2."): t.clone() for n, t in found.items() if "layer.0." in n}


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": sealed(flip),
    "a truncated file": shorten,
    "no weights": replaced(WEIGHTS, lambda path: None),
    "a pickle": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "a pipe for weights": replaced(WEIGHTS, os.mkfifo),
    "a pipe for the config": replaced("config.json", os.mkfifo),
    "a pipe for the tokenizer": replaced("tokenizer.json", os.mkfifo),
    "a pipe among the files": replaced("special_tokens_map.json", os.mkfifo),
    "a device for weights": replaced(WEIGHTS, lambda path: path.symlink_to("/dev/zero")),
    "a folder for weights": replaced(WEIGHTS, Path.mkdir),
    "a link out of the folder": replaced(WEIGHTS, lambda path: path.symlink_to(path.parents[1] / "secret")),
    "a tokenizer that is a link": replaced("tokenizer.json", lambda path: path.symlink_to("/etc/hostname")),
    "an index that leads out": index("../secret"),
    "an index of an absolute path": index("/etc/hostname"),
    "an index of what is not there": index("none.safetensors"),
    "an index that is none": lambda folder: (
        (folder / WEIGHTS).rename(folder / "x.safetensors"),
        put(f"{WEIGHTS}.index.json", '{"weight_map": [1]}')(folder),
    ),
    "deep JSON": put("config.json", "[" * 100_000),
    "deep JSON in an object": put("config.json", '{"a":' * 50_000),
    "a config of another kind": put("config.json", "[]"),
    "a key twice": twice,
    "a million layers": configured(num_hidden_layers=1_000_000),
    "more layers than there are": configured(num_hidden_layers=3),
    "fewer layers than there are": configured(num_hidden_layers=1),
    "150 million words": configured(vocab_size=150_000_000),
    "a million words": configured(vocab_size=1_000_000),
    "a layer that is not named": tensors(layer),
    "weights that are not named": tensors(lambda found: found.update({"bert.encoder.adapter.weight": torch.ones(3)})),
    "a missing matrix": tensors(lambda found: found.pop("bert.encoder.layer.1.output.dense.weight")),
    "another shape": tensors(lambda found: found.update({"bert.embeddings.word_embeddings.weight": torch.ones(9, 9)})),
    "code of its own": configured(model_type="evil", auto_map={"AutoConfig": "evil.Config"}),
    "a form nobody reads": configured(quantization_config={"quant_method": "trainflat-none", "weights": WEIGHTS}),
}

MISFITS = {
    "a missing matrix",
    "another shape",
    "a layer that is not named",
    "weights that are not named",
    "more layers than there are",
    "fewer layers than there are",
    "a million words",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line(folder: Path, damage: str, reader: Callable[[Path], Any]) -> None:
    DAMAGES[damage](folder)
    if reader is READERS["check"] and damage in MISFITS:
        return  # it looks at no weights
    with pytest.raises(InputError) as refusal:
        reader(folder)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.fixture
def cached(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of model org/name in a cache as the hub's client lays it out: links to blobs."""
    place = tmp_path / "models--org--name"
    folder, blobs = place / "snapshots" / "1f", place / "blobs"
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("1f")
    (folder.parent / "secret").write_bytes((source / WEIGHTS).read_bytes())
    for number, path in enumerate(sorted(shutil.copytree(source, blobs).iterdir())):
        (folder / path.name).symlink_to(path.rename(blobs / f"{number:040}"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return folder


NAMED = {kind: read for kind, read in READERS.items() if kind.startswith(("run", "teacher", "check"))}
QUICK = {"a link out of the folder", "a million layers", "an index that leads out", "a flipped bit", "a pickle"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize(
    "damage", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in DAMAGES]
)
def test_damage_of_what_a_hub_name_stands_for_is_one_line(
    cached: Path, damage: str, reader: Callable[[Any], Any]
) -> None:
    DAMAGES[damage](cached)
    if reader is READERS["check"] and damage in MISFITS:
        return
    with pytest.raises(InputError) as refusal:
        reader("org/name")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.mark.parametrize("reader", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("kind", ["as it was saved", "sealed", "in shards"])
def test_a_hub_name_stands_for_what_the_cache_holds(cached: Path, kind: str, reader: Callable[[Any], Any]) -> None:
    expected = tiny_bert().state_dict()
    ORDINARY[kind](cached)
    encoder = reader("org/name")
    state = encoder.model.state_dict()
    assert encoder.name == "org/name"
    assert reader is READERS["check"] or all(torch.equal(tensor, state[name]) for name, tensor in expected.items())


SIZES = [key for key, value in tiny_bert().config.to_dict().items() if type(value) in (int, float)]


QUICK_SIZES = ("hidden_size", "num_attention_heads", "vocab_size")


@pytest.mark.parametrize(
    "key",
    [*(pytest.param(key, marks=[] if key in QUICK_SIZES else pytest.mark.slow) for key in [*SIZES, "num_labels"])],
)
def test_absurd_numbers_are_refused_or_change_nothing(folder: Path, key: str) -> None:
    expected = trainflat.load(folder).state_dict()
    original = (folder / "config.json").read_text()
    for value in (10**9, 2**31, 2**20, -1, 0, 10**400, math.nan, math.inf, 1e300):
        try:
            configured(**{key: value})(folder)
        except ValueError:  # Python itself does not write so long a number
            (folder / "config.json").write_text(original.replace("{", f'{{"{key}": 1{"0" * 400},', 1))
        for reader in ("load", "run"):
            try:
                found = READERS[reader](folder)
            except InputError as error:
                assert "\n" not in str(error)
                continue
            state = (found if reader == "load" else found.model).state_dict()
            encoder = {name: tensor for name, tensor in state.items() if name.startswith("bert.")}
            assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.items())
        (folder / "config.json").write_text(original)


def old_names(found: dict[str, Any]) -> None:
    for name in [n for n in found if "LayerNorm" in n]:
        found[name.replace("weight", "gamma").replace("bias", "beta")] = found.pop(name)


ORDINARY: dict[str, Callable[[Path], Any]] = {
    "as it was saved": lambda folder: None,
    "sealed": seal,
    "old names of norms": tensors(old_names),
    "positions as a buffer": tensors(lambda f: f.update({"bert.embeddings.position_ids": torch.arange(64)[None]})),
    "heads of other uses": tensors(
        lambda f: f.update({"cls.predictions.bias": torch.ones(120), "cls.seq_relationship.weight": torch.ones(2, 16)})
    ),
    "in shards": lambda folder: (
        (folder / WEIGHTS).unlink(),
        tiny_bert().save_pretrained(folder, max_shard_size="20KB"),
    ),
    "a large base of rotary positions": configured(rope_theta=10_000_000),
    "a link to a folder": lambda folder: (folder / "latest").symlink_to(folder.parent),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ORDINARY)
def test_folders_that_people_have_are_read(folder: Path, kind: str, reader: Callable[[Path], Any]) -> None:
    expected = tiny_bert().state_dict()
    ORDINARY[kind](folder)
    found = reader(folder)
    state = getattr(found, "model", found).state_dict()
    assert reader is READERS["check"] or all(torch.equal(tensor, state[name]) for name, tensor in expected.items())


def test_the_hubs_cache_is_read_through_its_links(cached: Path) -> None:
    for reader in READERS.values():
        assert reader(cached)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_those_that_transformers_reads(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    kind = _auto(HEAD)
    folder = write(tmp_path, kind.from_config(config(family)).base_model)
    encoder = load_encoder(str(folder), HEAD, seed=3)
    torch.manual_seed(3)
    model = kind.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    state = encoder.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_tokenizer_that_cannot_read_every_text_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    unknown = content["model"]["unk_token"]
    content["model"]["vocab"].pop(unknown)
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != unknown]
    path.write_text(json.dumps(content))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("run", "check", "export"):
        with pytest.raises(InputError, match=r"cannot read every text|cannot be loaded|no tokenizer that can be read"):
            READERS[name](folder)


class PanicException(BaseException):
    """As Rust's code raises it, beside Exception."""


def test_a_panic_is_one_line_and_an_interrupt_stays_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            raise error

        return method

    for error, wanted in ((PanicException("index out of range"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)):
        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail(error))
        for name in ("run", "check", "export"):
            with pytest.raises(wanted):
                READERS[name](folder)
    assert is_fault(PanicException()) and not is_fault(SystemExit())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "damage", ["a pipe for the tokenizer", "a pipe for the config", "deep JSON", "150 million words"]
)
def test_bench_reads_no_hostile_folder_either(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder)
    opened: Any = SimpleNamespace(home=folder, name="onnx", model="model")
    with pytest.raises(InputError) as refusal:
        Scored(TASK).score(opened, SimpleNamespace())  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
