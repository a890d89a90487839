"""The int8 model that a training with fake quantization was for."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from trainflat.core.errors import DamagedFile, InputError
from trainflat.pruning import MagnitudePruner
from trainflat.quantization import Q8BERT, quantize_dynamic

WAYS = list(itertools.product(["tensor", "channel"], ["ema", "token"], [True, False], [True, False]))


def learned(**options: Any) -> tuple[Any, Q8BERT, dict[str, torch.Tensor]]:
    """A tiny model after a few steps of training, in evaluation mode, with a batch."""
    torch.manual_seed(0)
    model = tiny_bert()
    quantizer = Q8BERT(model, decay=0.5, **options).attach()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    split = random_split(24)
    for start in (0, 8, 16):
        optimizer.zero_grad()
        model(**collate([split[i] for i in range(start, start + 8)])).loss.backward()
        optimizer.step()
        quantizer.update()
    batch = collate([split[i] for i in range(24)])
    del batch["labels"]
    return model.eval(), quantizer, batch


@pytest.mark.parametrize(("weights", "activations", "embeddings", "head"), WAYS)
def test_the_int8_model_computes_what_was_trained(
    weights: Any, activations: Any, embeddings: bool, head: bool, tmp_path: Path
):
    model, quantizer, batch = learned(weights=weights, activations=activations, embeddings=embeddings, head=head)
    with torch.no_grad():
        fake = model(**batch).logits
    small: Any = quantizer.convert()
    torch.testing.assert_close(small(**batch).logits, fake, rtol=0, atol=2e-6)
    quantizer.detach()
    with torch.no_grad():
        assert (model(**batch).logits - fake).abs().max() > 3e-5  # so that agreeing says something
    dynamic = quantize_dynamic(model, embeddings=embeddings, head=head)
    same = [torch.equal(a, b) for a, b in zip(small.state_dict().values(), dynamic.state_dict().values(), strict=False)]
    assert all(same) == ((weights, activations) == ("channel", "token"))
    small.save_pretrained(tmp_path)
    for again in trainflat.load(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path):
        assert torch.equal(again(**batch).logits, small(**batch).logits)


def test_zeros_of_a_pruned_model_are_zeros_of_the_int8_one():
    model, quantizer, _ = learned()
    masks = MagnitudePruner(model, sparsity=0.7).prune()
    small = quantizer.convert()
    for name, mask in masks.items():
        assert not small.get_submodule(name.removesuffix(".weight")).weight_int8[~mask].any()


def test_layers_that_nothing_went_through_stay_float():
    _, quantizer, _ = learned()
    del quantizer._ranges["bert.pooler.dense"]
    small: Any = quantizer.convert()
    assert type(small.bert.pooler.dense) is nn.Linear
    assert "bert.pooler.dense" not in small.config.quantization_config["linears"]
    with pytest.raises(InputError, match=r"no range of inputs is known yet\. Train for a step"):
        Q8BERT(tiny_bert()).convert()


@pytest.mark.parametrize("value", [math.nan, -1.0, 0.0, math.inf, [1.0, 2.0]])
def test_a_damaged_step_of_inputs_is_refused(value: Any, tmp_path: Path):
    _, quantizer, _ = learned()
    small: Any = quantizer.convert()
    small.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "trainflat.safetensors")
    tensors["classifier.input_scale"] = torch.tensor(value)
    save_file(tensors, tmp_path / "trainflat.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedFile, match=r"classifier\.input_scale"):
        trainflat.load(tmp_path)
    del tensors["classifier.input_scale"]
    save_file(tensors, tmp_path / "trainflat.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedFile, match=r"classifier\.input_scale"):
        trainflat.load(tmp_path)


def test_half_precision_does_not_shift_the_steps():
    _, quantizer, _ = learned()
    small = quantizer.convert()
    before = {name: t.clone() for name, t in small.state_dict().items() if name.endswith("scale")}
    small.to(torch.bfloat16)
    assert all(torch.equal(t, small.state_dict()[name]) for name, t in before.items())


def test_autocast_rounds_in_float32():
    model, quantizer, batch = learned()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**batch).logits
        model.train()(**batch, labels=torch.zeros(24, dtype=torch.long)).loss.backward()
    torch.testing.assert_close(logits.float(), model.eval()(**batch).logits, rtol=0, atol=0.03)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    quantizer.update()
    assert all(math.isfinite(value) for value in quantizer._ranges.values())


def test_ranges_come_back_to_the_bit():
    _, quantizer, _ = learned()
    other = Q8BERT(tiny_bert())
    other.load_state_dict(quantizer.state_dict())
    assert other._ranges == quantizer._ranges
    for state in ({"bert": torch.tensor(1.0)}, {"classifier": torch.tensor(-1.0)}, {"classifier": torch.ones(2)}):
        with pytest.raises(InputError, match=f"ranges are of another model: {next(iter(state))} differs"):
            other.load_state_dict(state)
