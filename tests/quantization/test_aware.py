"""Fake quantization: formulas in float64, a slow reference, torch's own, and the int8 model that it stands for."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate
from trainflat.core.errors import InputError, UnknownName
from trainflat.quantization import Q8BERT, QUANTIZERS, quantize_rows
from trainflat.quantization.fake import FakeInt8Linear, fake_quantize, integers_of, step_of

Array = NDArray[np.float64]
F64 = torch.float64


def test_values_by_hand():
    x = torch.tensor([-2.0, -0.76, -0.75, 0.0, 0.25, 0.26, 63.4, 64.0], dtype=F64)
    found = fake_quantize(x, torch.tensor(0.5, dtype=F64))
    assert found.tolist() == [-2.0, -1.0, -1.0, 0.0, 0.0, 0.5, 63.5, 63.5]  # halves to even; ±127 steps at most
    weight = torch.tensor([[1.0, -254.0], [0.0, 12.7]], dtype=F64)
    assert step_of(weight, "tensor").item() == 2.0
    assert step_of(weight, "channel").flatten().tolist() == [2.0, 12.7 / 127]
    assert fake_quantize(torch.zeros(3), step_of(torch.zeros(1, 3), "tensor")).tolist() == [0.0] * 3


def test_gradients_pass_straight_through():
    """Also beyond the range, and to any order: the second derivative is that of what follows."""
    x = torch.tensor([0.3, 5.0, -900.0], dtype=F64, requires_grad=True)
    factor = torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    y = fake_quantize(x, torch.tensor(1.0, dtype=F64))
    (first,) = torch.autograd.grad((factor * y**2).sum(), x, create_graph=True)
    torch.testing.assert_close(first, 2 * factor * y, rtol=0, atol=0)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert second.tolist() == (2 * factor).tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 40), st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
def test_channels_round_as_quantize_rows_does(seed: int, rows: int, columns: int, size: float):
    """To the bit, so that training learns for the very integers that the int8 layer will hold."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    step = step_of(weight, "channel")
    expected = quantize_rows(weight)
    assert torch.equal(step, expected.step)
    assert torch.equal(integers_of(weight, step).to(torch.int8), expected.integers)
    assert torch.equal(fake_quantize(weight, step), expected.integers.float() * expected.step)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_torchs_own_fake_quantization_agrees(per: Any):
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    step = step_of(weight, per)
    if per == "tensor":
        peer = torch.fake_quantize_per_tensor_affine(weight, step.item(), 0, -127, 127)
    else:
        peer = torch.fake_quantize_per_channel_affine(
            weight, step[:, 0], torch.zeros(16, dtype=torch.int32), 0, -127, 127
        )
    ours = fake_quantize(weight, step)
    torch.testing.assert_close(ours, peer, rtol=1e-6, atol=0)
    assert not torch.equal(ours, weight)


class Slow:
    """Two linear layers and a ReLU between, trained by SGD with fake quantization: loops over single numbers."""

    def __init__(self, model: nn.Sequential, per: str, decay: float) -> None:
        self.weights = [model[k].weight.detach().numpy().copy() for k in (0, 2)]
        self.biases = [model[k].bias.detach().numpy().copy() for k in (0, 2)]
        self.per, self.decay = per, decay
        self.ranges: list[float | None] = [None, None]

    def rounded(self, value: float, step: float) -> float:
        return float(np.clip(np.rint(value / step), -127, 127)) * step

    def rounded_weight(self, weight: Array) -> Array:
        found = np.zeros_like(weight)
        for i, j in np.ndindex(*weight.shape):
            largest = np.abs(weight if self.per == "tensor" else weight[i]).max()
            found[i, j] = self.rounded(weight[i, j], largest / 127)
        return found

    def rounded_input(self, x: Array, k: int) -> Array:
        known = self.ranges[k]
        if known is None:
            return x
        step = float(np.float32(np.float32(known) / np.float32(127)))
        return np.vectorize(lambda value: self.rounded(value, step))(x)

    def step(self, x: Array, target: Array, lr: float) -> None:
        inputs, largest, products = x, [], []
        weights = [self.rounded_weight(weight) for weight in self.weights]
        for k in (0, 1):
            largest.append(float(np.abs(inputs).max()))
            rounded = self.rounded_input(inputs, k)
            products.append((rounded, rounded @ weights[k].T + self.biases[k]))
            inputs = np.maximum(products[-1][1], 0)
        gradient = 2 * (products[1][1] - target) / target.size  # of the mean squared error
        for k in (1, 0):
            if k == 0:
                gradient = gradient * (products[0][1] > 0)
            to_weight, to_bias = gradient.T @ products[k][0], gradient.sum(0)
            gradient = gradient @ weights[k]
            self.weights[k] -= lr * to_weight
            self.biases[k] -= lr * to_bias
        for k, value in enumerate(largest):
            known = self.ranges[k]
            self.ranges[k] = value if known is None else known - (1 - self.decay) * (known - value)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_a_training_is_that_of_the_slow_reference(per: Any):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    slow = Slow(model, per, decay=0.7)
    plain = copy.deepcopy(model)
    quantizer = Q8BERT(model, weights=per, decay=0.7).attach()
    for _ in range(6):
        x, target = torch.randn(11, 5, dtype=F64), torch.randn(11, 3, dtype=F64)
        slow.step(x.numpy(), target.numpy(), lr=0.3)
        for one, after in ((model, quantizer.update), (plain, lambda: None)):
            one.zero_grad()
            nn.functional.mse_loss(one(x), target).backward()
            with torch.no_grad():
                for p in one.parameters():
                    p.sub_(0.3 * p.grad)
            after()
    for k, place in enumerate((0, 2)):
        torch.testing.assert_close(model[place].weight.detach(), torch.tensor(slow.weights[k]), rtol=0, atol=1e-12)
        torch.testing.assert_close(model[place].bias.detach(), torch.tensor(slow.biases[k]), rtol=0, atol=1e-12)
        assert quantizer.state_dict()[str(place)].item() == pytest.approx(slow.ranges[k], rel=1e-12)
        assert (model[place].weight - plain[place].weight).abs().max() > 1e-5


def one_layer(**options: Any) -> tuple[nn.Linear, Q8BERT]:
    model = nn.Linear(2, 1)
    return model, Q8BERT(model, **options).attach()


def test_ranges_are_an_average_of_one_maximum_per_step():
    model, quantizer = one_layer(decay=0.75)
    for passes in ([4.0], [1.0, 8.0], [math.inf], []):  # the second step is cut in two; the third overflowed
        for largest in passes:
            model(torch.tensor([[-largest, 0.5]]))
        quantizer.update()
    assert quantizer.state_dict()[""].item() == 0.75 * 4 + 0.25 * 8
    with quantizer.unseen():
        model(torch.tensor([[99.0, 0.0]]))
    model.eval()(torch.tensor([[99.0, 0.0]]))
    quantizer.update()
    assert quantizer.state_dict()[""].item() == 5.0


def test_what_a_step_rounds_with_does_not_depend_on_how_it_is_cut():
    """Between two updates every pass sees the same range; the first step's inputs stay float."""
    model, quantizer = one_layer()
    x = torch.tensor([[0.123456, 3.0]])
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[127.0, 0.0]]))
        model.bias.zero_()
    assert model(x).item() == pytest.approx(127 * 0.123456)
    assert model(100 * x).item() == pytest.approx(12700 * 0.123456)
    quantizer.update()
    step = 300 / 127
    assert model(10 * x).item() == pytest.approx(127 * step * round(1.23456 / step))


def test_padding_does_not_count():
    model = tiny_bert().double()
    rows = [{"input_ids": [7] * n, "attention_mask": [1] * n, "labels": 0} for n in (3, 9)]
    ranges = []
    for batches in ([collate(rows)], [collate(rows[:1]), collate(rows[1:])]):
        model.train()
        torch.nn.Module.apply(model, lambda m: setattr(m, "p", 0.0) if isinstance(m, nn.Dropout) else None)
        quantizer = Q8BERT(model).attach()
        for batch in batches:
            model(**batch)
        quantizer.update()
        quantizer.detach()
        ranges.append(quantizer.state_dict())
    assert ranges[0].keys() == ranges[1].keys()
    for name, value in ranges[0].items():
        torch.testing.assert_close(value, ranges[1][name], rtol=1e-12, atol=0)


def test_attaching_leaves_everything_else_as_it_is():
    model = tiny_bert()
    before = {name: id(p) for name, p in model.named_parameters()}
    classes, keys = [type(m) for m in model.modules()], list(model.state_dict())
    rng = torch.get_rng_state()
    quantizer = Q8BERT(model).attach()
    assert torch.equal(rng, torch.get_rng_state())
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert list(model.state_dict()) == keys
    assert sum(isinstance(m, FakeInt8Linear) for m in model.modules()) == sum(kind is nn.Linear for kind in classes)
    with pytest.raises(InputError, match="computes with fake quantization already"):
        Q8BERT(model).attach()
    twin = copy.deepcopy(model)
    twin.classifier.quantizer._ranges["classifier"] = 1.0
    assert quantizer.state_dict() == {}
    quantizer.detach()
    assert [type(m) for m in model.modules()] == classes
    assert not model._forward_pre_hooks
    quantizer.attach().detach()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "row"}, "no way to round weights is called 'row'"),
        ({"activations": "batch"}, "no way to round activations is called 'batch'"),
        ({"decay": 1.0}, r"decay is a share, in \[0, 1\), got 1.0"),
        ({"decay": math.nan}, "decay is a share"),
        ({"decay": True}, "decay is a share"),
        ({"embeddings": 1}, "embeddings is true or false, got 1"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        QUANTIZERS.make("q8bert", nn.Linear(2, 2), **options)


def test_names_that_are_none():
    with pytest.raises(UnknownName, match=r"no quantization is called 'q8bird'\. Did you mean 'q8bert'"):
        QUANTIZERS.read("q8bird")
    with pytest.raises(UnknownName, match="no option of quantization 'q8bert' is called 'model'"):
        QUANTIZERS.make("q8bert", nn.Linear(2, 2), model=nn.Linear(2, 2))
    with pytest.raises(InputError, match="has no linear layer to round"):
        Q8BERT(nn.LayerNorm(2)).attach()
