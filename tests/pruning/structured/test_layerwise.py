"""Gates of units, and the walk through a model layer by layer, against whole passes through the model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.structured import NAMES, hearing, questions, random_model, rows
from trainflat.core.errors import InputError
from trainflat.pruning.structured.layerwise import stations
from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.sub_layers import gated, sub_layers


def zeroed(model: Any, seed: int = 3) -> None:
    """Zeroes some columns of every output matrix."""
    draws = torch.Generator().manual_seed(seed)
    for sub in sub_layers(model):
        keep = torch.rand(len(sub.units), generator=draws) < 0.6
        sub.matrix(model).weight.data *= keep.repeat_interleave(sub.width)


@pytest.mark.parametrize("family", NAMES)
def test_a_gate_of_zero_is_a_unit_without_columns(family: str) -> None:
    model, batch = random_model(family), questions(rows(family))
    subs = sub_layers(model)
    gates = [(sub, (torch.arange(len(sub.units)) % 3 != 1).double()) for sub in subs]
    with gated(model, gates):
        found = model(**batch).logits
    for sub, gate in gates:
        sub.matrix(model).weight.data *= gate.repeat_interleave(sub.width)
    torch.testing.assert_close(found, model(**batch).logits, rtol=0, atol=1e-12)
    assert [sub.kind for sub in subs] == ["attention", "feed-forward"] * (1 if family == "Albert" else 3)


@pytest.mark.parametrize("family", NAMES)
def test_stations_see_what_the_whole_pruned_model_reads(family: str) -> None:
    """Each station is looked at before its own matrix is changed and after all earlier ones were."""
    model, batch, subs = random_model(family), rows(family), sub_layers(random_model(family))
    pruned = random_model(family)
    zeroed(pruned)
    with hearing(pruned, [sub.module for sub in subs]) as heard:
        pruned(**questions(batch))
    shared = family == "Albert"  # all calls start from the dense model's hidden states
    for station in stations(model, [batch]):
        sub = station.sub
        seen = list(station.seen())
        if not shared:
            expected = heard[sub.module][0][0].flatten(0, -2)[unpadded_places(batch, len(heard[sub.module][0][0]))]
            torch.testing.assert_close(seen[0].inputs, expected, rtol=0, atol=1e-10)
        sub.matrix(model).weight.data.copy_(sub.matrix(pruned).weight)
        assert len(seen) == (3 if shared else 1)


def unpadded_places(batch: dict[str, Tensor], count: int) -> Tensor:
    mask = batch.get("attention_mask")
    return slice(None) if mask is None else mask.flatten().bool()  # type: ignore[return-value]


@pytest.mark.parametrize("family", NAMES)
def test_targets_of_a_model_that_is_not_changed_are_the_outputs(family: str) -> None:
    model = random_model(family)
    for station in stations(model, [rows(family)]):
        for seen in station.seen():
            output = station.sub.matrix(model)(seen.inputs)
            torch.testing.assert_close(seen.target, output, rtol=0, atol=1e-10)


def test_targets_mend_what_earlier_sub_layers_did() -> None:
    """BERT, written out: the dense stream before the LayerNorm, less the residual of the pruned model."""
    dense, pruned, batch = random_model("Bert"), random_model("Bert"), rows("Bert")
    mask = batch["attention_mask"].flatten().bool()
    names = {"attention": "attention.output", "feed-forward": "output"}
    zeroed(pruned)
    model = random_model("Bert")
    for station in stations(model, [batch]):
        sub = station.sub
        norm = f"bert.encoder.layer.{sub.place}.{names[sub.kind]}.LayerNorm"
        with hearing(dense, [norm]) as wanted:
            dense(**questions(batch))
        with hearing(model, [norm, sub.module]) as heard:
            model(**questions(batch))
        passing_by = heard[norm][0][0] - heard[sub.module][0][1]
        expected = (wanted[norm][0][0] - passing_by).flatten(0, 1)[mask]
        torch.testing.assert_close(next(station.seen()).target, expected, rtol=0, atol=1e-10)
        sub.matrix(model).weight.data.copy_(sub.matrix(pruned).weight)


def moments(model: Any, batches: list[dict[str, Tensor]]) -> list[Moments]:
    return [Moments.of(station.seen()) for station in stations(model, batches)]


@pytest.mark.parametrize("family", NAMES)
def test_neither_padding_nor_the_order_of_batches_matters(family: str) -> None:
    model, first, second = random_model(family), rows(family), rows(family, seed=5)
    wider = rows(family, padding=4)
    plain = moments(model, [first, second])
    for other in (moments(model, [second, first]), moments(model, [wider, second])):
        for a, b in zip(plain, other, strict=True):
            assert a.count == b.count
            torch.testing.assert_close(a.inputs, b.inputs, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(a.cross, b.cross, rtol=1e-9, atol=1e-9)


def test_the_error_of_moments_is_the_error() -> None:
    model = random_model("Bert")
    for station in stations(model, [rows("Bert"), rows("Bert", seed=4)]):
        seen = list(station.seen())
        x, t = (torch.cat([getattr(one, name) for one in seen]) for name in ("inputs", "target"))
        weight = torch.randn(t.shape[1], x.shape[1]).double()
        bias, left = torch.randn(t.shape[1]).double(), t - x @ weight.T
        found = Moments.of(seen)
        assert found.error(weight, bias) == pytest.approx(float((left - bias).square().sum(1).mean()), rel=1e-10)
        assert found.error(weight, None) == pytest.approx(float(left.square().sum(1).mean()), rel=1e-10)
        best = float((left - left.mean(0)).square().sum(1).mean())  # with the bias that suits it best
        assert found.centred().error(weight, None) == pytest.approx(best, rel=1e-10)


def test_what_cannot_be_walked_is_refused() -> None:
    with pytest.raises(InputError, match="no row to calibrate on"):
        list(stations(random_model("Bert"), []))
    model = random_model("DebertaV2", conv_kernel_size=3)
    with pytest.raises(InputError, match="changes the hidden states between two layers"):
        list(stations(model, [rows("DebertaV2")]))


def test_the_model_comes_back_as_it_was() -> None:
    model = random_model("Bert").train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    walk = stations(model, [rows("Bert")])
    next(walk)
    walk.close()
    assert model.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
