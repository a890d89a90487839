"""Rounding and products, against closed forms, for any input, and against float64."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainflat.core.errors import DamagedFile, InputError
from trainflat.quantization import (
    Int8Embedding,
    Int8Linear,
    has_integer_kernel,
    quantize_dynamic,
    quantize_rows,
    without_integer_kernel,
)
from trainflat.quantization.arithmetic import (
    integer_product,
    quantize_batch,
    quantize_batch_as_torch,
    quantize_matrix_as_torch,
)

WAYS = {"token": quantize_rows, "batch": quantize_batch, "torch": quantize_batch_as_torch}
ACTIVATIONS = list(WAYS)
needs_kernel = pytest.mark.skipif(not has_integer_kernel(), reason="this processor has no integer kernel")

numbers = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=1, max_size=4)
)


def linear(rows: int, columns: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(columns, rows, bias=bias).requires_grad_(False)


@given(matrices)
@settings(deadline=None, max_examples=200)
def test_every_weight_comes_back_within_half_a_step_and_zero_as_zero(rows):
    weight = torch.tensor(rows, dtype=torch.float32)
    integers, step, zero = quantize_rows(weight)
    assert zero is None
    assert integers.dtype == torch.int8
    assert int(integers.min()) >= -127
    off = (integers.double() * step.double() - weight.double()).abs()
    assert bool((off <= (0.5 + 127 * 2**-22) * step.double()).all())  # w / step is rounded to 24 bits first
    assert bool((integers[weight == 0] == 0).all())


@pytest.mark.parametrize("way", [quantize_batch, quantize_batch_as_torch])
@given(rows=matrices)
@settings(deadline=None, max_examples=200)
def test_a_batch_comes_back_within_a_step_and_zero_as_zero(rows, way):
    x = torch.tensor(rows, dtype=torch.float32)
    integers, step, zero = way(x)
    off = (step.double() * (integers.double() - zero.double()) - x.double()).abs()
    assert bool((off <= 1.01 * step.double()).all())  # a zero that is itself rounded moves the ends by half a step
    assert bool((integers[x == 0] == zero).all())


def test_rounding_by_hand():
    integers, step, _ = quantize_rows(torch.tensor([[127.0, 0.4, -0.6, 2.5], [0.0, 0.0, 0.0, 0.0], [-254.0, 1, 3, 5]]))
    assert integers.tolist() == [[127, 0, -1, 2], [0, 0, 0, 0], [-127, 0, 2, 2]]  # halves go to the even neighbour
    assert step[[0, 2], 0].tolist() == [1, 2]
    integers, step, zero = quantize_batch(torch.tensor([[0.0, 255.0], [51.0, 1.4]]))
    assert (integers.tolist(), float(step), float(zero)) == ([[-128, 127], [-77, -127]], 1, -128)


def test_rounding_as_torch_by_hand():
    weight = torch.tensor([[127.5, 0.0, -0.6], [2.5, -127.5, 0.0]])
    integers, step, zero = quantize_matrix_as_torch(weight)
    assert (integers.tolist(), step.tolist(), zero) == ([[127, 0, -1], [2, -128, 0]], [[1.0], [1.0]], None)
    integers, step, zero = quantize_batch_as_torch(torch.tensor([[-30.0, 97.0], [0.5, 1.4]]))
    assert (float(step), float(zero)) == (1, 30 - 64)
    assert integers.tolist() == [[-64, 63], [30 - 64, 31 - 64]]  # 30.5 goes to 30, the even neighbour


def torchs(layer: nn.Linear) -> nn.Module:
    """The same layer by torch's deprecated engine, with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own end
        made = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)
    return made[0]


needs_engine = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch's engine rounds otherwise here"
)


@needs_engine
@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.3, 50.0])
@pytest.mark.parametrize("size", [(1, 7, 5), (33, 768, 96), (5, 3072, 64)])
def test_torchs_own_engine_has_the_same_integers_and_outputs(shift, size):
    rows, columns, outputs = size
    layer = linear(outputs, columns)
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(7)) + shift
    made, peer = quantize_dynamic(layer, activations="torch"), torchs(layer)
    assert torch.equal(made.weight_int8, peer.weight().int_repr())
    assert float(made.scale[0]) == peer.weight().q_scale()
    product = (made.weight.abs() @ x.abs().T).max()
    torch.testing.assert_close(made(x), peer(x), rtol=0, atol=4 * 2**-24 * float(product))


@needs_engine
@pytest.mark.parametrize("zero", range(40, 48))
def test_torchs_own_engine_sends_halves_the_same_way(zero):
    """Inputs on a grid of halves of the step, under weights that leave them as they are."""
    x = torch.randint(-2 * zero, 2 * (127 - zero), (64, 8), generator=torch.Generator().manual_seed(zero)).float() / 2
    x[0, :2] = torch.tensor([-zero, 127.0 - zero])
    layer = nn.Linear(8, 8, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.eye(8))
    assert torch.equal(quantize_dynamic(layer, activations="torch")(x), torchs(layer)(x))


def test_torchs_arithmetic_is_the_coarsest():
    """What the published int8 figures were made with, beside ours: 7 bits for 8, one step for all channels."""
    layer, x = linear(64, 256), torch.randn(32, 256, generator=torch.Generator().manual_seed(8))
    layer.weight.mul_(torch.rand(64, 1, generator=torch.Generator().manual_seed(9)) + 0.1)
    off = {way: float((quantize_dynamic(layer, activations=way)(x) - layer(x)).norm()) for way in ACTIVATIONS}
    assert off["torch"] > 1.5 * off["batch"] > 1.5 * off["token"] / 1.5


@pytest.mark.parametrize("activations", ["token", "batch"])
@pytest.mark.parametrize("bias", [True, False])
def test_where_nothing_is_rounded_the_output_is_the_float_one(activations, bias):
    layer = linear(4, 3, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, 1, -5], [-127, 0, 3], [2, 127, 127], [-127, 127, -127]]) / 64)
    x = torch.tensor([[[127.0, -100, 3], [-127, 5, 0]], [[0, 127, 1], [127, 0, 0]]]) / 32
    if activations == "batch":
        x[..., 0, 0] = 127 / 32
        x[0, 1, 0] = -128 / 32  # 256 values from -128 to 127: a step of 1 / 32 fits
    torch.testing.assert_close(quantize_dynamic(layer, activations=activations)(x), layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("rows", [1, 2, 17, 128])
def test_the_output_is_the_product_of_the_rounded_factors(activations, rows):
    """Against float64 from the definition; float32 steps and sums cost 24 bits."""
    layer = linear(24, 100)
    made = quantize_dynamic(layer, activations=activations)
    x = torch.randn(rows, 100, generator=torch.Generator().manual_seed(1)) + 0.3
    integers, step, zero = WAYS[activations](x)
    rounded = (integers.double() - (0 if zero is None else zero.double())) * step.double()
    weight = made.weight_int8.double() * made.scale.double()[:, None]
    expected = rounded @ weight.T + layer.bias.double()
    scale = float((rounded.abs() @ weight.abs().T).max())
    assert float((made(x).double() - expected).abs().max()) < 4 * 2**-24 * scale
    assert float((expected - layer(x).double()).abs().max()) < (0.04 if activations == "torch" else 0.02) * scale


@needs_kernel
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("size", [(1, 7, 5), (33, 768, 96), (5, 3072, 64)])
def test_kernel_and_fallback_agree_bit_for_bit(activations, size):
    """As no sum leaves 2^24 here; the last case has sums that could."""
    rows, columns, outputs = size
    made = quantize_dynamic(linear(outputs, columns), activations=activations)
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))
    with without_integer_kernel():
        fallback = made(x)
    assert torch.equal(made(x), fallback)


@needs_kernel
def test_kernel_and_fallback_agree_to_24_bits_in_the_largest_sums():
    x, weight = torch.full((3, 3071), -127, dtype=torch.int8), torch.full((2, 3071), 127, dtype=torch.int8)
    exact = integer_product(x, weight)
    assert exact.dtype == torch.int32
    assert bool((exact == -3071 * 127**2).all())
    with without_integer_kernel():
        torch.testing.assert_close(integer_product(x, weight), exact.float(), rtol=3071 * 2**-24, atol=0)


@pytest.mark.parametrize("kernel", [True, False])
def test_an_output_does_not_depend_on_what_else_is_in_the_batch(kernel):
    made = quantize_dynamic(linear(8, 40))
    x = torch.randn(6, 5, 40, generator=torch.Generator().manual_seed(3))
    loud = x.clone()
    loud[1:] *= 1000

    def outputs() -> torch.Tensor:
        return torch.stack([made(x)[0], made(x[:1])[0], made(loud)[0], made(x[0])])

    if kernel:
        found = outputs()
    else:
        with without_integer_kernel():
            found = outputs()
    assert bool((found == found[0]).all())


def test_the_switch_is_put_back_after_an_exception():
    made, x = quantize_dynamic(linear(2, 3)), torch.ones(1, 3, dtype=torch.int8)
    kernel = integer_product(x, made.weight_int8).dtype
    with pytest.raises(ZeroDivisionError), without_integer_kernel():
        assert integer_product(x, made.weight_int8).dtype == torch.float32
        1 / 0  # noqa: B018
    assert integer_product(x, made.weight_int8).dtype == kernel


@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_other_types_autocast_and_empty_inputs(activations):
    made = quantize_dynamic(linear(4, 6), activations=activations)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(made(x.to(dtype)), made(x.to(dtype).float()).to(dtype))
    for switch in (without_integer_kernel, torch.no_grad):
        with switch(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(made(x), made(x.clone()))
            assert made(x).dtype == torch.float32
    with without_integer_kernel():
        plain = made(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(made(x), plain)
    assert made(x[:0]).shape == (0, 4)
    assert made(x.expand(2, 3, 5, 6)).shape == (2, 3, 5, 4)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_none(activations, bad):
    made = quantize_dynamic(linear(4, 6), activations=activations)
    x = torch.ones(2, 6)
    x[0, 3] = bad
    assert not bool(made(x)[0].isfinite().any())
    if activations == "token":
        assert torch.equal(made(x)[1], made(torch.ones(1, 6))[0])


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
def test_a_batch_layer_forgets_its_sums_when_it_gets_other_weights(mode):
    with mode():
        first, second = (quantize_dynamic(linear(4, 6, seed=s), activations="batch") for s in (0, 1))
    x = torch.rand(3, 6)
    expected, other = second(x), first(x)
    assert not torch.equal(expected, other)
    with mode():  # in place
        first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), expected)


def test_half_precision_leaves_the_steps_alone():
    made = quantize_dynamic(linear(4, 6))
    scale = made.scale.clone()
    for dtype in (torch.bfloat16, torch.float64):
        made.to(dtype)
        assert torch.equal(made.scale, scale)
        assert made.scale.dtype == torch.float32
        assert made.weight_int8.dtype == torch.int8


def test_embeddings_give_the_rows_of_the_rounded_table():
    torch.manual_seed(0)
    table = nn.Embedding(11, 6, padding_idx=0).requires_grad_(False)
    made = quantize_dynamic(nn.Sequential(table, nn.Linear(6, 2)), embeddings=True)[0]
    assert isinstance(made, Int8Embedding)
    ids = torch.tensor([[0, 3, 10], [3, 3, 1]])
    assert torch.equal(made(ids), made.weight[ids])
    assert not bool(made(ids)[0, 0].any())
    assert float((made.weight - table.weight).abs().max()) <= 0.501 * float(made.scale.max())


@pytest.mark.parametrize("rows", [1e-42, 0.0])
def test_rows_too_small_for_a_step_of_their_own(rows):
    integers, step, _ = quantize_rows(torch.tensor([[rows, -rows]]))
    assert bool(step.isfinite().all())
    assert bool((step > 0).all())
    assert float((integers * step).abs().max()) <= 2e-42


def test_no_gradient_flows_and_no_parameter_is_left():
    made = quantize_dynamic(linear(4, 6))
    assert list(made.parameters()) == []
    assert not made(torch.ones(1, 6, requires_grad=True)).requires_grad


def test_a_tensor_of_another_kind_is_refused_by_name():
    made = Int8Linear(3, 2)
    made.check("it")
    made.scale = torch.tensor([1.0, -1.0])
    with pytest.raises(DamagedFile, match=r"it\.scale is not 2 positive"):
        made.check("it")
    made.weight_int8 = torch.zeros(2, 3)
    with pytest.raises(DamagedFile, match=r"it\.weight_int8 is torch\.float32 \[2, 3\], not int8 \[2, 3\]"):
        made.check("it")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(bad):
    model = nn.Sequential(linear(2, 3), linear(2, 2))
    with torch.no_grad():
        model[1].weight[1, 0] = bad
    with pytest.raises(InputError, match="weights of 1 contain NaN or infinity"):
        quantize_dynamic(model)
