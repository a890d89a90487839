"""Scores from the gradient flow: in closed form on a quadratic, against plain double backward on a transformer."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.support.gradient_flow import Bowl, transformer
from tests.support.objectives import cut
from trainflat.anatomy.params import prunable
from trainflat.core.progress import Progress
from trainflat.objective import Objective, model_loss, under
from trainflat.pruning import (
    PRUNERS,
    GradientNormPruner,
    GraspPruner,
    LossPreservationPruner,
    Masks,
    gradient_norm_change,
    loss_change,
)

METHODS = {"loss-preservation": LossPreservationPruner, "grasp": GraspPruner, "gradient-norm": GradientNormPruner}
every = pytest.mark.parametrize("name", METHODS)


def close(found: Any, wanted: dict[str, Tensor], rtol: float = 1e-11) -> None:
    assert list(found) == list(wanted)
    for name, score in found.items():
        torch.testing.assert_close(score, wanted[name], rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("sizes", [(6,), (4, 2), (1, 2, 3)])
def test_closed_forms_on_a_quadratic(sizes: tuple[int, ...]) -> None:
    bowl = Bowl()
    theta, g = bowl.theta().detach(), bowl.a @ (bowl.theta().detach() - bowl.c)
    objective = bowl.objective(*sizes)
    first, second = bowl.as_weights(theta * g), bowl.as_weights(theta * (bowl.a @ g))
    close(loss_change(objective, prunable(bowl)), first)
    close(gradient_norm_change(objective, prunable(bowl)), second)
    given = {"objective": objective}
    close(LossPreservationPruner(bowl, **given).scores(), {n: s.abs() for n, s in first.items()})
    biased = {n: (s * prunable(bowl)[n].detach()).abs() for n, s in first.items()}
    close(LossPreservationPruner(bowl, biased=True, **given).scores(), biased)
    close(GradientNormPruner(bowl, **given).scores(), {n: s.abs() for n, s in second.items()})
    close(GraspPruner(bowl, temperature=1, **given).scores(), second)
    assert any((score < 0).any() for score in second.values())


def test_they_tell_what_a_small_removal_does() -> None:
    """The loss falls by share · θg, the squared norm of the gradient by 2 · share · θHg."""
    bowl, share = Bowl(), 1e-7
    objective = bowl.objective(6)
    first, second = (f(objective, prunable(bowl)) for f in (loss_change, gradient_norm_change))
    value, square = objective.value(), sum(float(g.square().sum()) for g in objective.gradient())
    for name, weight in prunable(bowl).items():
        for at in np.ndindex(*weight.shape):
            with torch.no_grad():
                before = weight[at].clone()
                weight[at] *= 1 - share
            assert (value - objective.value()) / share == pytest.approx(first[name][at].item(), rel=1e-4, abs=1e-6)
            fall = square - sum(float(g.square().sum()) for g in objective.gradient())
            assert fall / (2 * share) == pytest.approx(second[name][at].item(), rel=1e-3, abs=1e-4)
            with torch.no_grad():
                weight[at] = before


def test_under_masks_only_survivors_count() -> None:
    """As if the other weights were not there: at 0, and no part of the gradient that training follows."""
    bowl = Bowl()
    generator = torch.Generator().manual_seed(1)
    masks = Masks({n: torch.rand(w.shape, generator=generator) < 0.6 for n, w in prunable(bowl).items()})
    kept = torch.cat(
        [masks[n].reshape(-1) if n in masks else torch.ones(p.numel()) for n, p in bowl.named_parameters()]
    )
    theta = bowl.theta().detach() * kept
    g = kept * (bowl.a @ (theta - bowl.c))
    before = bowl.theta().detach().clone()
    objective = bowl.objective(4, 2)
    close(loss_change(objective, prunable(bowl), masks), bowl.as_weights(theta * g))
    close(gradient_norm_change(objective, prunable(bowl), masks), bowl.as_weights(theta * (bowl.a @ g)))
    assert torch.equal(bowl.theta(), before)
    assert objective.size == bowl.size  # the objective itself is among all weights still


def slow_loss(model: Any, rows: dict[str, Tensor], temperature: float) -> Tensor:
    outputs = model(**rows)
    if "start_positions" in rows:
        pairs = (outputs.start_logits, rows["start_positions"]), (outputs.end_logits, rows["end_positions"])
        return sum(F.cross_entropy(z / temperature, at.clamp(0, 6), ignore_index=6) for z, at in pairs) / 2
    if outputs.logits.shape[-1] == 1:
        return (outputs.logits[:, 0] - rows["labels"]).square().mean()
    return F.cross_entropy(outputs.logits / temperature, rows["labels"])


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("kind", ["classes", "numbers", "spans"])
def test_a_transformer_against_plain_double_backward(kind: str, temperature: float) -> None:
    model, rows = transformer(kind)
    slow = copy.deepcopy(model).eval()
    slow.set_attn_implementation("eager")
    params = [p for p in slow.parameters() if p.requires_grad]
    found = torch.autograd.grad(slow_loss(slow, rows, temperature), params, create_graph=True, allow_unused=True)
    pairs = [(p, g) for p, g in zip(params, found, strict=True) if g is not None]
    half_square = sum(g.square().sum() for _, g in pairs) / 2
    product = dict(zip(params, torch.autograd.grad(half_square, params, allow_unused=True), strict=True))
    wanted = {n: p.detach() * product[p] for n, p in prunable(slow).items()}
    objective = Objective(model, cut(rows, 5))
    scores = GraspPruner(model, objective=objective, temperature=temperature).scores()
    scale = max(float(w.abs().max()) for w in wanted.values())
    assert scale > 1e-12
    for name, score in scores.items():
        torch.testing.assert_close(score / scale, wanted[name] / scale, rtol=1e-8, atol=1e-10)
    if temperature == 1:
        firsts = dict(pairs)
        wanted = {n: (p * firsts[p]).detach().abs() for n, p in prunable(slow).items()}
        close(LossPreservationPruner(model, objective=objective).scores(), wanted, rtol=1e-8)


@every
def test_how_rows_are_cut_does_not_matter(name: str) -> None:
    model, rows = transformer("classes")
    one, many = (METHODS[name](model, objective=Objective(model, cut(rows, *s))).scores() for s in [(5,), (2, 2, 1)])
    scale = max(float(score.abs().max()) for score in one.values())
    for key, score in one.items():
        torch.testing.assert_close(score / scale, many[key] / scale, rtol=1e-8, atol=1e-10)


@every
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(name: str, attention: str) -> None:
    """Weights, modes, gradients, what requires one, attention and every random state; masked or not."""
    model, rows = transformer("classes", attention)
    model(**rows).loss.backward()
    model.bert.embeddings.eval()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    before = {n: (p.detach().clone(), p.grad.clone(), p.requires_grad) for n, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    held = PRUNERS["random"](model, sparsity=0.3).select()
    for masks in (None, held):
        METHODS[name](model, masks=masks, objective=Objective(model, cut(rows, 3, 2))).select()
    for n, p in model.named_parameters():
        value, gradient, requires = before[n]
        assert torch.equal(p, value) and torch.equal(p.grad, gradient) and p.requires_grad == requires
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == attention
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


@every
def test_an_exception_on_the_way_leaves_it_too(name: str) -> None:
    model, rows = transformer("classes")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    calls = 0

    def failing(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return model_loss(model, batch)

    masks = PRUNERS["random"](model, sparsity=0.3).select()
    options = {} if name == "loss-preservation" else {"temperature": 1}
    with pytest.raises(KeyboardInterrupt):
        METHODS[name](model, masks=masks, objective=Objective(model, cut(rows, 3, 2), loss=failing), **options).select()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert model.training


class Heard(Progress):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.told.append((what, total))

    def advance(self, done: int, note: str = "") -> None:
        self.told.append(done)


def test_progress_counts_rows_of_both_passes() -> None:
    model, rows = transformer("classes")
    heard = Heard()
    GraspPruner(model, objective=Objective(model, cut(rows, 3, 2), progress=heard)).scores()
    assert heard.told == [("pruning scores", 10), 3, 5, 8, 10]


def test_an_objective_is_made_only_for_those_who_ask() -> None:
    model, rows = transformer("classes")
    asked: list[tuple[int, int]] = []

    def make(count: int, size: int) -> Objective:
        asked.append((count, size))
        return Objective(model, cut(rows, 5))

    for name in PRUNERS:
        PRUNERS[name](model, objective=make).select()
    assert asked == [(512, 16)] * 3
    PRUNERS["grasp"](model, objective=make, rows=7, batch_size=2).select()
    assert asked[-1] == (7, 2)


def test_both_masks_of_an_objective_hold() -> None:
    bowl = Bowl()
    a, b = (torch.arange(6).view(2, 3) % k > 0 for k in (2, 3))
    outer = under(bowl.objective(2), {"one.weight": a})
    inner = under(outer, {"one.weight": b})
    assert (inner.size, outer.size) == (bowl.size - int((~(a & b)).sum()), bowl.size - int((~a).sum()))
    assert torch.equal(inner.gradient()[0] != 0, a & b)
