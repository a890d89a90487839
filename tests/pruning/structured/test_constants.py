"""Units of which zeros leave a constant, over the architecture families: folded, they are gone and nothing else is."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.tiny_families import ENDS, MODELS, SIZES, logits, make
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.pruning.structured import fill_zeros, fold_constants, shrink, units_left

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
DRAWN = {"seed": st.integers(0, 10**6), "share": st.sampled_from([0.1, 0.4, 0.8, 1.0])}


def assert_same(found: Tensor, expected: Tensor) -> None:
    scale = max(float(expected.abs().max()), 1.0)
    assert float((found - expected).abs().max()) <= 1e-12 * scale


def with_zeros(model: Any, seed: int, share: float) -> Any:
    """Zeroes a share of the rows of each matrix, half of these with their biases, and half a share of the columns."""
    draw, anatomy = torch.Generator().manual_seed(seed), anatomy_of(model)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for name in anatomy.matrices():
            weight, bias = tensors[name], tensors.get(name.replace("weight", "bias"))
            rows = torch.rand(len(weight), generator=draw) < share
            weight[rows] = 0
            weight[:, torch.rand(weight.shape[1], generator=draw) < share / 2] = 0
            if bias is not None:
                bias[rows & (torch.rand(len(weight), generator=draw) < 0.5)] = 0
    return model


def folded_is_the_same(model: Any) -> Any:
    before, names = logits(model), set(model.state_dict())
    fold_constants(model)
    assert set(model.state_dict()) == names
    assert_same(logits(model), before)
    small = shrink(model, units_left(model))
    assert_same(logits(small), before)
    fold_constants(small)  # of a smaller model too, where layers may have nothing left
    assert_same(logits(small), before)
    return small


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=4, **QUIET)
@given(**DRAWN)
def test_constants_are_folded(name: str, seed: int, share: float) -> None:
    folded_is_the_same(with_zeros(make(name, seed % 7), seed, share))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=100, **QUIET)
@given(**DRAWN)
def test_constants_are_folded_on_many_patterns(name: str, seed: int, share: float) -> None:
    folded_is_the_same(with_zeros(make(name, seed % 7), seed, share))


def test_what_is_left_is_what_loops_find() -> None:
    model = with_zeros(make("bert"), 3, 0.4)
    state = model.state_dict()

    def row(name: str, i: int) -> bool:
        return bool(state[f"{name}.weight"][i].any())

    def bias(name: str, i: int) -> bool:
        return bool(state[f"{name}.bias"][i] != 0)

    for number, layer in enumerate(units_left(model).layers):
        path = f"bert.encoder.layer.{number}"
        at, out = f"{path}.attention.self", state[f"{path}.attention.output.dense.weight"]
        for i in range(12):
            assert layer.value_output[i] == (row(f"{at}.value", i) and bool(out[:, i].any()))
            assert layer.query_key[i] == all(row(f"{at}.{n}", i) or bias(f"{at}.{n}", i) for n in ("query", "key"))
        for i in range(10):
            read = state[f"{path}.output.dense.weight"][:, i].any()
            assert layer.units[i] == (row(f"{path}.intermediate.dense", i) and bool(read))
    assert 0 < sum(float(layer.units.sum()) for layer in units_left(model).layers) < 20


@torch.no_grad()
def test_a_head_without_queries_is_the_mean_of_its_values() -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"num_hidden_layers": 1}
    model = transformers.BertModel(transformers.BertConfig(**sizes)).double().eval()
    attention = model.encoder.layer[0].attention
    attention.self.query.weight.data.zero_()
    attention.self.query.bias.data.zero_()
    kept = units_left(model)
    assert not kept.layers[0].query_key.any() and kept.layers[0].kept_heads() == (0, 1, 2)
    heard: list[Tensor] = []
    attention.output.dense.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    hidden = torch.randn(2, 5, 12, dtype=torch.float64)
    model(inputs_embeds=hidden)
    states = model.embeddings(inputs_embeds=hidden)
    assert_same(heard[0], attention.self.value(states).mean(1, keepdim=True).expand(-1, 5, -1))
    small = shrink(model, kept)
    assert_same(small(inputs_embeds=hidden).last_hidden_state, model(inputs_embeds=hidden).last_hidden_state)


def test_a_unit_without_inputs_is_its_activation_at_the_bias() -> None:
    """Also where that of 0 is not 0, and where there is no bias to take it in."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, hidden_act="sigmoid")
    model = transformers.BertForSequenceClassification(config).double().eval()
    first, second = (model.bert.encoder.layer[0].get_submodule(n) for n in ("intermediate.dense", "output.dense"))
    torch.nn.init.normal_(first.bias)
    first.weight.data[:3] = 0
    first.bias.data[0] = 0
    wanted = second.bias.detach() + second.weight[:, :3].detach() @ first.bias.detach()[:3].sigmoid()
    folded_is_the_same(model)
    torch.testing.assert_close(second.bias.detach(), wanted, rtol=0, atol=1e-15)
    assert not second.weight[:, :3].any()
    assert units_left(model).layers[0].units.tolist() == [0.0] * 3 + [1.0] * 7
    # The same zeros once more, and no bias: 0.5 stays where it is added.
    second.weight.data[:, :3] = 1.0
    second.register_parameter("bias", None)
    assert units_left(model).layers[0].units.all()
    before = logits(model)
    fold_constants(model)
    assert torch.equal(logits(model), before)


def test_of_two_halves_the_gating_one_shuts_a_unit() -> None:
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**SIZES | ENDS, mlp_bias=True, attention_bias=True)
    model = transformers.ModernBertForSequenceClassification(config).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    halves = model.model.layers[0].mlp.Wi
    for row in (0, 1, 11, 12, 13):  # of units 0 and 1 the activated half, of 1, 2 and 3 the gating one
        halves.weight.data[row] = 0
    halves.bias.data[12] = 0  # the gating half of unit 2 is 0; that of unit 3 is a number times the other half
    folded_is_the_same(model)
    assert units_left(model).layers[0].units[:5].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0]
    folded_is_the_same(with_zeros(model, 5, 0.5))


def test_what_is_unknown_is_refused() -> None:
    for call in (units_left, fold_constants, fill_zeros):
        with pytest.raises(InputError, match="structure of 'Linear' is not known"):
            call(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_zeros_are_filled_around_the_mean(name: str) -> None:
    model = with_zeros(make(name), 1, 0.4)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    inside = [key for key in anatomy_of(model).matrices() if "pooler" not in key]
    zeros = sum(int((before[key] == 0).sum()) for key in inside)
    assert fill_zeros(model, seed=4) == zeros > 0
    filled = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    draw = torch.Generator().manual_seed(4)
    for key, old in before.items():
        new, kept = filled[key], old != 0
        if key not in inside:
            assert torch.equal(new, old)
            continue
        assert torch.equal(new[kept], old[kept]) and (new != 0).all()
        noise = torch.randn(old.shape, generator=draw).double()
        torch.testing.assert_close(new[~kept], (old.mean() + 0.01 * old.std() * noise)[~kept], rtol=1e-12, atol=0)
    assert fill_zeros(model) == 0
    model.load_state_dict(before)
    fill_zeros(model, seed=4)
    assert all(torch.equal(tensor, filled[key]) for key, tensor in model.state_dict().items())
