"""Model and tokenizer meet before anything is trained: what cannot work is one line, and what can is left as it was."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper
from transformers import BertModel, RobertaConfig, RobertaModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

import trainflat
from tests.support.families import SIZES, config, write
from tests.support.runs import own_files, recipe
from trainflat.commands.diagnose import diagnose
from trainflat.commands.export import export
from trainflat.core.errors import InputError, TrainflatError
from trainflat.engines import OnnxRuntime, OpenVinoRuntime
from trainflat.models import Encoder, load_encoder, meet
from trainflat.tasks.base import Head

TWO = Head("classification", ("no", "yes"))
ROWS = [{"input_ids": [1, 4, 5, 2][: 2 + i], "attention_mask": [1] * min(4, 2 + i), "labels": i % 2} for i in range(3)]


def encoder_of(folder: Path, **options: Any) -> Encoder:
    write(folder, BertModel(config("Bert", **options)))
    return load_encoder(str(folder), TWO)


def test_nothing_is_changed(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    model = encoder.model.train()
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    meet(encoder, ROWS, learns=True)
    assert model.training and all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"classifier.weight"}
    assert bool((model.classifier.weight.grad == 1).all())


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "types": ({"token_type_ids": [0, 5]}, "token types go up to 5, and the model knows 2 of them"),
    "ids": ({"input_ids": [1, 77]}, "ids go up to 77, and there are 40 embeddings"),
    "positions": (
        {"input_ids": [1] * 40, "attention_mask": [1] * 40},
        "a row has 40 tokens, and there are 32 positions",
    ),
    "label": ({"labels": 7}, "ends in IndexError: Target 7 is out of bounds"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(fault: str, tmp_path: Path) -> None:
    changed, reason = FAULTS[fault]
    encoder = encoder_of(tmp_path)
    encoder.tokenizer.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    with pytest.raises(TrainflatError, match=rf"model '.*' \(BertForS.*\) cannot use .* tokenizer \(.*\) .*{reason}"):
        meet(encoder, [{"input_ids": [1, 2], "attention_mask": [1, 1], "labels": 0} | changed] * 2, learns=True)


def test_answers_that_are_no_numbers(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    with torch.no_grad():
        encoder.model.bert.encoder.layer[0].output.dense.bias[0] = torch.nan
    with pytest.raises(TrainflatError, match="gives no numbers"):
        meet(encoder, ROWS)


@pytest.mark.long
def test_a_model_without_second_texts_gets_no_token_types(tmp_path: Path) -> None:
    sizes = SIZES | {"type_vocab_size": 1}
    folder = write(tmp_path / "model", RobertaModel(RobertaConfig(**sizes)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.save_pretrained(folder)
    assert "token_type_ids" in transformers.AutoTokenizer.from_pretrained(folder).model_input_names
    given = recipe(folder, own_files(tmp_path, text=["text", "other"])) | {"protocol": {"name": "dense"}}
    assert any("token types are left out" in note for note in trainflat.plan(given, out=tmp_path / "runs").notes)
    trainflat.run(given, out=tmp_path / "runs")
    stage = next(tmp_path.glob("runs/*/stages/*"))
    assert "token_type_ids" not in transformers.AutoTokenizer.from_pretrained(stage).model_input_names
    assert export(stage, "onnx", tmp_path / "onnx").agreement == 1


@pytest.mark.parametrize(("engine", "kind"), [(OnnxRuntime, TensorProto.INT32), (OpenVinoRuntime, TensorProto.INT32)])
def test_integers_are_cast_to_what_a_file_takes(engine: Any, kind: int, tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(n, kind, ["N", "T"]) for n in ("input_ids", "attention_mask")]
    nodes = [
        helper.make_node("Add", ["input_ids", "attention_mask"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "T"])]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "model.onnx")
    tokens = {"input_ids": np.array([[3, 4]]), "attention_mask": np.array([[1, 1]])}
    opened = engine.open(tmp_path / "model.onnx", 1)
    assert opened.run(tokens)[0].tolist() == [[4.0, 5.0]]
    with pytest.raises(TrainflatError, match="the file takes attention_mask, and the tokenizer returns only input_ids"):
        opened.run({"input_ids": tokens["input_ids"]})


_TINY: dict[str, Any] = SIZES | {"d_model": 8, "dim": 8, "emb_dim": 8, "embedding_size": 8, "n_layers": 3, "n_layer": 3}
_TINY |= {"n_heads": 2, "n_head": 2, "d_inner": 12, "d_head": 4, "hidden_dim": 12, "num_landmarks": 4}
_MORE: dict[str, dict[str, Any]] = {
    "reformer": {
        "num_hidden_layers": 2,
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds": False,
        "attention_head_size": 4,
        "feed_forward_size": 8,
    },
    "funnel": {"block_sizes": [1, 1, 1], "architectures": ["FunnelModel"]},
    "longformer": {"attention_window": 4},
    "perceiver": {"pad_token_id": 0, "num_latents": 4, "d_latents": 8, "num_self_attends_per_block": 1},
    "esm": {"mask_token_id": 3},
}
# Not text alone, or hundreds of gigabytes at any size that its configuration can say.
_NOT_TEXT = {"layoutlmv2", "modernvbert", "mistral4"}


def encoders() -> list[str]:
    """Every architecture without a decoder that transformers can put a head for rows on."""
    generates = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    names = set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES) - generates - _NOT_TEXT
    return sorted(name for name in names if not transformers.CONFIG_MAPPING[name]().is_encoder_decoder)


def tiny(kind: str) -> Any:
    whole = transformers.CONFIG_MAPPING[kind]()
    known = {name: value for name, value in _TINY.items() if hasattr(whole, name)}
    if kind == "funnel":  # whose layers are blocks
        known = {name: value for name, value in known.items() if name not in {"num_hidden_layers", "n_layers"}}
    return transformers.CONFIG_MAPPING[kind](**(known | _MORE.get(kind, {})))


def test_check_finds_it_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", transformers.AutoModel.from_config(tiny("nystromformer")))
    given = recipe(folder, own_files(tmp_path))
    for call in (trainflat.plan, trainflat.run):
        with pytest.raises(
            InputError, match=r"\(NystromformerForSequenceClassification\) cannot use what its tokenizer"
        ):
            call(given, out=tmp_path / "runs")


def works_or_is_one_line(kind: str, tmp_path: Path, *, exported: bool) -> str:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(tiny(kind))
    folder = write(tmp_path / "model", model)
    given = recipe(folder, own_files(tmp_path)) | {"protocol": {"name": "one-shot", "sparsities": [0.5]}}
    done = []
    for name, call in {
        "check": lambda: trainflat.plan(given, out=tmp_path / "runs"),
        "run": lambda: trainflat.run(given, out=tmp_path / "runs"),
        "diagnose": lambda: diagnose(
            next(tmp_path.glob("runs/*/stages/dense")), given["task"], rows=4, measures=[{"name": "gradient-norm"}]
        ),
        "export": lambda: export(next(tmp_path.glob("runs/*/stages/dense")), "onnx", tmp_path / "onnx"),
    }.items():
        if name == "export" and not exported:
            continue
        try:
            call()
            done.append(name)
        except TrainflatError as error:
            assert len(str(error).splitlines()) == 1 and str(error).endswith((".", "?")), error
            done.append(f"no {name}: {error}")
            if name == "run":
                break
    return "; ".join(done)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["squeezebert"])
def test_an_architecture_works_or_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    works_or_is_one_line(kind, tmp_path, exported=False)  # tracing takes most of the time


@pytest.mark.slow
@pytest.mark.parametrize("kind", encoders())
def test_every_architecture_works_or_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    works_or_is_one_line(kind, tmp_path, exported=True)
