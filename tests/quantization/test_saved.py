"""int8 models on disk: the same bits in another process, over the families, and files that are not what was saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.families import FAMILIES, SIZES, TWO, config, tokenizer
from tests.support.fresh import run_fresh
from trainflat.core.errors import DamagedFile, InputError
from trainflat.models import load_encoder, max_positions, no_bars
from trainflat.models.int8 import Int8Config
from trainflat.models.quiet import quiet_loading
from trainflat.quantization import Int8Embedding, Int8Linear, quantize_dynamic

IDS = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(0))


def save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    with no_bars():
        model.save_pretrained(folder)
    return folder


def tiny(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    if family == "ViT":
        options = {"image_size": 8, "patch_size": 4, "num_labels": 3}
        return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, **options)).eval()
    return AutoModelForSequenceClassification.from_config(config(family)).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    if "pixel_values" in model.main_input_name:
        return model(pixel_values=torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8)).logits
    return model(input_ids=IDS).logits


def same_bits(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize(
    ("family", "activations"), [*((family, "token") for family in (*FAMILIES, "ViT")), ("Bert", "torch")]
)
def test_every_family_comes_back_bit_for_bit(family, activations, tmp_path):
    model = tiny(family)
    made = quantize_dynamic(model, embeddings=True, head=True, activations=activations)
    folder = save(made, tmp_path / "int8")
    loaded = trainflat.load(folder)
    assert same_bits(loaded, made)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(made))
    assert float((logits(made) - logits(model)).abs().max()) < 0.05
    assert any(isinstance(module, Int8Linear) for module in loaded.modules())
    again = save(loaded, tmp_path / "again")
    for name in ("trainflat.safetensors", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_fresh_process_computes_the_same_bits(tmp_path):
    made = quantize_dynamic(tiny("Bert"), embeddings=True)
    folder = save(made, tmp_path)
    program = (
        "import sys, torch, trainflat.models\n"
        "from transformers import AutoModelForSequenceClassification as Auto\n"
        "torch.set_num_threads(1)\n"
        "model = Auto.from_pretrained(sys.argv[1])\n"
        "ids = torch.tensor(eval(sys.argv[2]))\n"
        "print(model(input_ids=ids).logits.tolist())\n"
    )
    done = run_fresh(folder, str(IDS.tolist()), code=program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == logits(made).tolist()


def test_transformers_loads_it_with_and_without_a_head(tmp_path):
    made = quantize_dynamic(tiny_bert().eval())
    folder = save(made, tmp_path / "head")
    with quiet_loading():
        encoder = AutoModel.from_pretrained(folder)
        assert same_bits(encoder, made.bert)
        assert AutoModel.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.float32
    assert not encoder.hf_quantizer.is_trainable
    alone = save(quantize_dynamic(tiny_bert().bert), tmp_path / "alone")
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(alone)
    assert same_bits(model.bert, made.bert)


def test_an_encoder_for_a_task_may_be_int8(tmp_path):
    made = quantize_dynamic(tiny("Roberta"), embeddings=True)
    folder = save(made, tmp_path)
    tokenizer(1).save_pretrained(folder)
    encoder = load_encoder(str(folder), TWO, fine_tuned=True)
    assert same_bits(encoder.model, made)
    assert max_positions(encoder.model) == 32


def test_dense_and_pruned_models_load_too(tmp_path):
    model = tiny_bert().eval()
    loaded = trainflat.load(str(save(model, tmp_path)))
    assert same_bits(loaded, model)


def bert_base_bytes(embeddings: bool) -> tuple[int, int]:
    """Bytes of BERT-base's tensors in float32 and in int8, from shapes."""
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig())
    dense = sum(p.numel() for p in model.parameters()) * 4
    matrices = [m for m in model.bert.modules() if type(m) is torch.nn.Linear]
    matrices += [m for m in model.modules() if type(m) is torch.nn.Embedding and embeddings]
    return dense, dense - sum(m.weight.numel() * 3 - m.weight.shape[0] * 4 for m in matrices)


def tensor_bytes(path: Path) -> int:
    return sum(t.numel() * t.element_size() for t in load_file(path).values())


def test_bert_base_shrinks_to_a_quarter(tmp_path):
    dense, int8 = bert_base_bytes(embeddings=True)
    assert int8 <= 0.30 * dense
    assert bert_base_bytes(embeddings=False)[1] < 0.45 * dense
    # The same count, on a real file.
    model = tiny_bert(hidden_size=64, intermediate_size=256, vocab_size=1000)
    before = tensor_bytes(save(model, tmp_path / "dense") / "model.safetensors")
    after = tensor_bytes(save(quantize_dynamic(model, embeddings=True), tmp_path / "int8") / "trainflat.safetensors")
    matrices = [m for m in model.bert.modules() if type(m) in (torch.nn.Linear, torch.nn.Embedding)]
    assert before - after == sum(m.weight.numel() * 3 - m.weight.shape[0] * 4 for m in matrices)


@pytest.mark.slow
def test_a_real_file_of_bert_base_shape(tmp_path):
    model = transformers.BertForSequenceClassification(transformers.BertConfig())
    sizes = [
        sum(path.stat().st_size for path in save(one, tmp_path / str(number)).glob("*.safetensors"))
        for number, one in enumerate((model, quantize_dynamic(model, embeddings=True)))
    ]
    assert sizes[1] <= 0.30 * sizes[0]


QUERY = "bert.encoder.layer.1.attention.self.query"


def damage_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "trainflat.safetensors"
    tensors = load_file(path) | {f"{QUERY}.{key}": value for key, value in changes.items()}
    save_file({k: v.clone() for k, v in tensors.items() if v is not None}, path, {"format": "pt"})


def damage_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    value = json.loads(path.read_text(encoding="utf8"))
    value["quantization_config"] |= {k: v for k, v in changes.items() if k in value["quantization_config"]}
    path.write_text(json.dumps(value | {k: v for k, v in changes.items() if k == "architectures"}), encoding="utf8")


def truncate(folder: Path, share: float) -> None:
    path = folder / "trainflat.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


BAD = {
    "half written": (lambda f: truncate(f, 0.5), "not a whole safetensors file"),
    "empty": (lambda f: truncate(f, 0), "not a whole safetensors file"),
    "no weights": (lambda f: damage_tensors(f, weight_int8=None), "query.weight_int8"),
    "no steps": (lambda f: damage_tensors(f, scale=None), "query.scale"),
    "no bias": (lambda f: damage_tensors(f, bias=None), "query.bias"),
    "other shape": (lambda f: damage_tensors(f, weight_int8=torch.zeros(16, 8, dtype=torch.int8)), "query.weight_int8"),
    "turned": (lambda f: damage_tensors(f, weight_int8=torch.zeros(8, 32, dtype=torch.int8)), "query.weight_int8"),
    "floats": (lambda f: damage_tensors(f, weight_int8=torch.zeros(16, 16)), "query.weight_int8 is torch.float32"),
    "bytes": (lambda f: damage_tensors(f, weight_int8=torch.zeros(16, 16, dtype=torch.uint8)), "torch.uint8"),
    "steps of another shape": (lambda f: damage_tensors(f, scale=torch.ones(16, 1)), "query.scale"),
    "NaN": (lambda f: damage_tensors(f, scale=torch.full((16,), torch.nan)), "query.scale is not 16 positive"),
    "negative": (lambda f: damage_tensors(f, scale=-torch.ones(16)), "query.scale is not 16 positive"),
    "floats beside": (lambda f: damage_tensors(f, weight=torch.zeros(16, 16)), "unknown .*query.weight"),
    "layers not named": (lambda f: damage_config(f, linears=[]), "names no layer"),
    "strange names": (lambda f: damage_config(f, linears=["bert", QUERY]), "names bert, which is a BertModel"),
    "no names": (lambda f: damage_config(f, linears={"a": 1}), "must be a list"),
    "a number among many names": (lambda f: damage_config(f, linears=[QUERY] * 90 + [1]), "must be a list"),
    "other rounding": (lambda f: damage_config(f, activations="row"), "got 'row'"),
    "no class": (lambda f: damage_config(f, architectures=["os.system"]), "architecture .*os.system"),
    "other method": (lambda f: damage_config(f, quant_method="none-such"), "none-such|lacks"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_not_what_was_saved_are_refused_in_one_line(name, tmp_path):
    break_it, text = BAD[name]
    folder = save(quantize_dynamic(tiny_bert()), tmp_path)
    break_it(folder)
    with pytest.raises(InputError, match=text) as error:
        trainflat.load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and len(str(error.value)) < 500


def test_transformers_refuses_them_too(tmp_path):
    folder = save(quantize_dynamic(tiny_bert()), tmp_path)
    for changes, text in [
        ({"scale": torch.zeros(16)}, r"query\.scale is not 16 positive"),
        ({"scale": torch.ones(16), "weight_int8": None}, r"no fitting encoder\..*query\.weight_int8"),
    ]:
        damage_tensors(folder, **changes)
        with quiet_loading(), pytest.raises(DamagedFile, match=text):
            AutoModel.from_pretrained(folder)
    with pytest.raises(InputError, match="call quantize_dynamic"):
        AutoModel.from_pretrained(
            save(tiny_bert(), tmp_path / "dense"),
            quantization_config=Int8Config(activations="token", linears=[], embeddings=[]),
        )


def test_no_folder_and_no_safetensors_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no model folder"):
        trainflat.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no config\.json"):
        trainflat.load(tmp_path)
    folder = save(tiny_bert(), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="as a pickle"):
        trainflat.load(folder)


def test_embeddings_are_int8_in_the_loaded_model_too(tmp_path):
    loaded = trainflat.load(save(quantize_dynamic(tiny_bert(), embeddings=True), tmp_path))
    assert isinstance(loaded.bert.embeddings.word_embeddings, Int8Embedding)
    assert loaded.config.quantization_config.embeddings
