"""The loss as a function of the weights: values, gradients and Hessian products, and that nothing is left behind."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.conftest import tiny_bert
from tests.support.objectives import Watcher, bert_objective, cut, flat, matrix, sentences, snapshot, surface, survivors
from trainflat.core.errors import InputError, UnknownName
from trainflat.sharpness import Objective

START = torch.linspace(-1, 1, 10)
ways = pytest.mark.parametrize("way", ["rebuilt", "held", "differences"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def multiply(objective, vector, way):
    if way == "rebuilt":
        return objective.hvp(vector)
    with objective.products("exact" if way == "held" else "differences") as product:
        product(vector)  # a graph that is held must be good for more than one
        return product(vector)


@ways
@pytest.mark.parametrize("rows", [(4,), (3, 2, 2)])
def test_quadratic(rows, way):
    h, g = matrix(10), torch.linspace(0, 3, 10, dtype=torch.float64)
    objective = surface(START, g, h, level=0.25, rows=rows)
    v = objective.random_direction(seeded())
    assert objective.value() == pytest.approx(0.25, abs=1e-15)
    torch.testing.assert_close(flat(objective.gradient()), g, rtol=1e-14, atol=1e-14)
    tolerance = 1e-6 if way == "differences" else 1e-14
    torch.testing.assert_close(flat(multiply(objective, v, way)), h @ flat(v), rtol=tolerance, atol=tolerance)


@ways
def test_a_linear_loss_has_no_curvature(way):
    objective = surface(START, torch.ones(10))
    products = multiply(objective, objective.random_direction(seeded()), way)
    assert flat(products).abs().max() < 1e-9
    assert [p.shape for p in products] == [w.shape for w in objective.weights]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_products_with_a_transformer_are_differences_of_gradients(attention):
    """Tensor by tensor, because a wrong one can hide: LayerNorm's weights once did."""
    objective = bert_objective(3, 2, attention=attention)
    v = objective.random_direction(seeded())
    step = 2e-6  # where rounding and the third derivative both are some 1e-9
    with objective.displaced(v, step):
        after = objective.gradient()
    with objective.displaced(v, -step):
        before = objective.gradient()
    layer_norms = 0
    for name, exact, a, b in zip(objective.names, objective.hvp(v), after, before, strict=True):
        torch.testing.assert_close(exact, (a - b) / (2 * step), rtol=1e-6, atol=1e-8, msg=name)
        layer_norms += "LayerNorm.weight" in name and bool(exact.abs().max() > 1e-4)
    assert layer_norms >= 2


@ways
def test_products_are_symmetric(way):
    objective = bert_objective(4)
    u, v = (objective.random_direction(seeded(i)) for i in (1, 2))
    uhv, vhu = (flat(a) @ flat(multiply(objective, b, way)) for a, b in ((u, v), (v, u)))
    assert uhv.item() == pytest.approx(vhu.item(), rel=1e-5 if way == "differences" else 1e-12)


@pytest.mark.parametrize("sizes", [(1, 6), (3, 3, 1), (1,) * 7])
def test_batches_do_not_matter(sizes):
    whole, parts = bert_objective(7), bert_objective(*sizes)
    v = whole.random_direction(seeded())
    assert parts.value() == pytest.approx(whole.value(), rel=1e-14)
    assert parts.value_and_gradient()[0] == pytest.approx(whole.value(), rel=1e-14)
    for ask in (Objective.gradient, lambda o: o.hvp(v), lambda o: multiply(o, v, "held")):
        torch.testing.assert_close(flat(ask(parts)), flat(ask(whole)), rtol=1e-11, atol=1e-13)


@ways
def test_masks_restrict_everything_to_the_survivors(way):
    h, g = matrix(10), torch.linspace(1, 3, 10, dtype=torch.float64)
    kept = torch.tensor([[True, False], [False, True]])
    objective = surface(START, g, h, masks={"a": kept})
    mask = torch.cat([kept.reshape(-1), torch.ones(6, dtype=torch.bool)]).double()
    free = surface(START).random_direction(seeded())
    assert objective.size == 8
    torch.testing.assert_close(flat(objective.gradient()), mask * g)
    found = flat(multiply(objective, free, way))
    torch.testing.assert_close(found, mask * (h @ (mask * flat(free))), rtol=1e-6, atol=1e-6)
    for vector in (objective.random_direction(seeded()), objective.random_signs(seeded())):
        assert torch.equal(flat(vector) != 0, mask.bool())
    with objective.displaced(free):
        torch.testing.assert_close(objective.model.flat(), START.double() + mask * flat(free))


def test_signs_are_even():
    signs = flat(surface(torch.zeros(1600)).random_signs(seeded()))
    assert set(signs.tolist()) == {1.0, -1.0}
    assert abs(signs.sum()) < 4 * 40


@contextlib.contextmanager
def measurement(objective, fail):
    """Something of everything, with an exception at the end if asked for."""
    v = objective.random_direction(seeded())
    with objective.measuring():
        objective.gradient()
        with objective.products() as product, objective.displaced(v, 0.5):
            torch.rand(3), np.random.random(), random.random()
            with objective.displaced(v, 2.0):
                objective.value()
            if fail:
                raise KeyError("midway")
        product(v)
        yield


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("caller", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_nothing_is_left_behind(fail, caller):
    objective = bert_objective(3, 2)
    model = objective.model
    model.bert.embeddings.eval()
    model.classifier.bias.requires_grad_(False)
    model.classifier.weight.grad = torch.full_like(model.classifier.weight, 7.0)
    tensors, rest = snapshot(model)
    outcome = pytest.raises(KeyError) if fail else contextlib.nullcontext()
    with caller(), outcome, measurement(objective, fail):
        assert not model.training
        assert all(w.requires_grad for w in objective.weights)
    after, rest_after = snapshot(model)
    assert rest_after == rest
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {"classifier.weight"}
    assert torch.equal(model.classifier.weight.grad, torch.full_like(model.classifier.weight, 7.0))


def test_every_displacement_ends_where_it_began():
    objective = bert_objective(3)
    v = objective.random_direction(seeded())
    with objective.measuring():
        origin = flat(objective.weights).detach().clone()
        with objective.displaced(v, 0.3):
            first = flat(objective.weights).detach().clone()
            with objective.displaced(v, 1e5):
                pass
            assert torch.equal(flat(objective.weights), first)
        assert torch.equal(flat(objective.weights), origin)


def test_a_graph_that_is_held_refuses_other_weights():
    objective = bert_objective(3)
    v = objective.random_direction(seeded())
    with objective.products() as product, objective.displaced(v), pytest.raises(RuntimeError, match="modified by an"):
        product(v)


def test_dropout_is_off():
    objective = bert_objective(4)
    assert objective.model.training
    assert objective.value() == objective.value()


def test_attention_that_has_no_second_derivative_is_exchanged():
    """As the kernels for GPUs are, which cannot run here: an implementation that is neither sdpa nor eager."""

    def fused(module, *args, **kwargs):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("fused", fused)
    v = bert_objective(4).random_direction(seeded())
    objective = bert_objective(4, attention="sdpa")
    expected = flat(objective.hvp(v))
    objective.model.set_attn_implementation("fused")
    torch.testing.assert_close(flat(objective.hvp(v)), expected)
    torch.testing.assert_close(flat(multiply(objective, v, "held")), expected)
    assert objective.model.config._attn_implementation == "fused"
    rows = cut(sentences(4), 4)
    broken = Objective(objective.model, rows, loss=lambda model, batch: model(nothing=batch).loss)
    with pytest.raises(ValueError, match="input_ids"):
        broken.hvp(v)
    assert objective.model.config._attn_implementation == "fused"


def test_parts_cover_the_rows_in_order():
    objective = bert_objective(5, 3)
    parts = list(objective.split(2))
    assert [part.rows for part in parts] == [2, 2, 1, 2, 1]
    labels = torch.cat([batch["labels"] for part in parts for batch in part.batches])
    assert torch.equal(labels, torch.cat([batch["labels"] for batch in objective.batches]))
    mean = sum(part.value() * part.rows for part in parts) / 8
    assert mean == pytest.approx(objective.value(), rel=1e-14)


def test_frozen_parameters_may_be_named():
    model = tiny_bert().requires_grad_(False)
    name = "classifier.weight"
    objective = Objective(model, [sentences(3)], parameters={name: model.get_parameter(name)})
    assert objective.gradient()[0].shape == (2, 16)
    assert not model.get_parameter(name).requires_grad


def test_gradients_of_half_precision_are_summed_in_float32():
    model = tiny_bert().bfloat16()
    gradient = Objective(model, cut(sentences(6), 3, 3)).gradient()
    assert {g.dtype for g in gradient} == {torch.float32}


def test_a_watcher_sees_every_batch():
    watcher = Watcher()
    objective = surface(START, rows=(3, 2), progress=watcher)
    objective.value()
    assert watcher.seen == []
    with objective.taking("a look", 2) as effort:
        objective.value()
        objective.gradient()
        objective.value()
        assert (effort().values, effort().gradients, effort().products) == (2, 1, 0)
        assert (effort().rows, effort().batches, effort().weights) == (5, 2, 10)
    assert watcher.seen == [("a look", 10), 3, 5, 8, 10, 10, 10, "end"]


def test_refusals():
    model = tiny_bert()
    for nothing in ([], [{}], [{"input_ids": torch.zeros(0, 4, dtype=torch.long)}]):
        with pytest.raises(InputError, match="the split is empty"):
            Objective(model, nothing)
    rows = sentences(2)
    with pytest.raises(InputError, match="LayerNorm has no parameters to measure"):
        Objective(nn.LayerNorm(3).requires_grad_(False), [rows])
    with pytest.raises(UnknownName, match=r"no measured parameter is called 'classifier.wait'.*classifier.weight"):
        Objective(model, [rows], masks={"classifier.wait": torch.ones(2, 16, dtype=torch.bool)})
    for wrong in (torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 16)):
        with pytest.raises(InputError, match=r"the mask of classifier.weight is .* of \(2, 16\)"):
            Objective(model, [rows], masks={"classifier.weight": wrong})
    del rows["labels"]
    with pytest.raises(InputError, match=r"returned no loss. Give batches with labels"):
        Objective(model, [rows]).value()
    objective = surface(START)
    with (
        pytest.raises(UnknownName, match="no way to multiply with the Hessian is called 'guess'"),
        objective.products("guess"),
    ):
        pass


def test_survivors_of_a_transformer():
    objective = bert_objective(3)
    masks = survivors(objective)
    kept = sum(int(mask.sum()) for mask in masks.values())
    rest = sum(w.numel() for name, w in zip(objective.names, objective.weights, strict=True) if name not in masks)
    assert bert_objective(3, masks=masks).size == kept + rest
