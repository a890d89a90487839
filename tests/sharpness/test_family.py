"""What every measure of sharpness promises, over the table."""

import random

import numpy as np
import pytest
import torch

from tests.support.objectives import Watcher, bert_objective, cut, sentences, snapshot, survivors
from trainflat.core.errors import InputError
from trainflat.evaluation import measure_flatness
from trainflat.sharpness import MEASURES, Objective, distinct, model_loss

QUICK = {
    "ball": [{}, {"m": 2}, {"adaptive": True, "rho": 0.5}],
    "gaussian": [{}, {"relative": True}],
    "gradient-norm": [{}],
    "hessian": [{"samples": 3, "iterations": 8}, {"samples": 2, "iterations": 5, "products": "differences"}],
    "keskar": [{"dimension": 5}, {"space": "full"}],
    "spectrum": [{"steps": 4, "probes": 2}],
}
every = pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in MEASURES for options in QUICK[name]], ids=str
)


@every
def test_the_same_seed_gives_the_same_numbers(name, options):
    measure = MEASURES.build(name, **options)
    first = measure.measure(bert_objective(3, 2), seed=4)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    assert measure.measure(bert_objective(3, 2), seed=4) == first
    assert all(np.isfinite(value) for value in first.values())
    assert measure.compute(bert_objective(3, 2), seed=4).figures() == first
    if name in ("gaussian", "spectrum") or options.get("dimension") or "samples" in options:
        assert measure.measure(bert_objective(3, 2), seed=5) != first


@every
def test_it_names_its_numbers_beforehand(name, options):
    measure = MEASURES.build(name, **options)
    assert measure.names() == list(measure.measure(bert_objective(3)))


@every
def test_it_counts_its_passes_beforehand(name, options):
    measure = MEASURES.build(name, **options)
    effort, passes = measure.compute(bert_objective(3, 2)).effort, measure.passes()
    spent = {kind: getattr(effort, kind) for kind in ("values", "gradients", "products")}
    assert {kind for kind, count in spent.items() if count} == set(passes)
    assert all(
        min(2, count / 2) <= spent[kind] <= 2 * count for kind, count in passes.items()
    )  # a search may end at once
    about, most = measure.seconds(bert_objective(3, 2), dict.fromkeys(spent, 1.0))
    assert about <= most and sum(spent.values()) <= most + 1


@every
def test_a_model_that_has_diverged(name, options):
    """One weight is enough, and nothing goes on after the first pass."""
    calls = []

    def loss(model, batch):
        calls.append(1)
        return model_loss(model, batch)

    for sizes in (3,), (2, 1):
        objective = bert_objective(*sizes, loss=loss)
        with torch.no_grad():
            objective.model.classifier.bias[0] = float("nan")
        calls.clear()
        with pytest.raises(InputError, match=r" is nan at the weights themselves; the sharpness of a model") as caught:
            MEASURES.build(name, **options).compute(objective)
        assert "\n" not in str(caught.value)
        assert len(calls) <= 2 * len(sizes)


@every
def test_seeds_that_are_none(name, options):
    for seed in (-1, 1.5, True, "0", None, np.int64(3), 2**63):
        with pytest.raises(InputError, match=r"seed is .* a whole number from 0 to 2\^63 - 1, got "):
            MEASURES.build(name, **options).compute(bert_objective(2), seed)


@every
def test_without_a_weight_that_may_move(name, options):
    objective = bert_objective(2)
    named = zip(objective.names, objective.weights, strict=True)
    masks = {key: torch.zeros_like(w, dtype=torch.bool) for key, w in named}
    with pytest.raises(InputError, match="no weight may move, so that nothing can be measured"):
        MEASURES.build(name, **options).compute(bert_objective(2, masks=masks))


def test_figures_of_one_name_are_refused():
    objective = bert_objective(2)
    for first, second, name in [
        ({"name": "gaussian", "samples": 2}, {"name": "gaussian", "samples": 5}, "gaussian_0.01"),
        ({"name": "keskar"}, {"name": "keskar"}, "keskar_0.001"),
        ({"name": "hessian", "k": 2}, {"name": "hessian"}, "eigenvalue_1"),
        ({"name": "spectrum"}, {"name": "spectrum", "steps": 3}, "spectrum_lowest"),
    ]:
        with pytest.raises(InputError, match=f"two of the measures give a figure called {name}. Leave one"):
            measure_flatness(objective, [first, {"name": "ball"}, second])
    apart = [MEASURES.build(name, **options) for name in QUICK for options in QUICK[name] if name != "hessian"]
    distinct(apart)


def test_what_does_not_fit_is_told_before_anything_is_measured():
    calls = []
    objective = bert_objective(2, loss=lambda model, batch: calls.append(1) or model_loss(model, batch))
    size = objective.size
    with pytest.raises(InputError, match=f"dimension is {size + 1}, but only {size} weights may move"):
        measure_flatness(objective, [{"name": "ball"}, {"name": "keskar", "dimension": size + 1}])
    with pytest.raises(InputError, match=f"k is {size + 1}, but a Hessian of {size} weights has no more eigenvalues"):
        measure_flatness(objective, [{"name": "ball"}, {"name": "hessian", "k": size + 1, "iterations": size + 1}])
    assert calls == []


@every
@pytest.mark.parametrize("fails_at", [None, 1, 2, 4])
def test_no_trace(name, options, fails_at):
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise KeyError("midway")
        torch.rand(1), np.random.random(), random.random()
        return model_loss(model, batch)

    objective = bert_objective(2, 2, loss=loss)
    model = objective.model
    model.bert.encoder.eval()
    model.classifier.bias.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    tensors, rest = snapshot(model)
    measure = MEASURES.build(name, **options)
    try:
        measure.measure(objective)
        ended = True
    except KeyError:
        ended = False
    assert ended == (fails_at is None or fails_at > calls)
    after, rest_after = snapshot(model)
    assert rest_after == rest
    assert all(torch.equal(after[key], tensor) for key, tensor in tensors.items())
    assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))
    assert sum(p.grad is not None for p in model.parameters()) == 1


@every
def test_only_survivors_move(name, options):
    masks = survivors(bert_objective(4))
    places = []

    def loss(model, batch):
        places.append({key: p.detach().clone() for key, p in model.named_parameters()})
        return model_loss(model, batch)

    objective = bert_objective(4, masks=masks, loss=loss)
    with torch.no_grad():
        for key, mask in masks.items():
            objective.model.get_parameter(key).mul_(mask)
    found = MEASURES.build(name, **options).compute(objective)
    assert found.effort.weights == objective.size < sum(w.numel() for w in objective.weights)
    for place in places:
        assert all((place[key][~mask] == 0).all() for key, mask in masks.items())
    free = Objective(objective.model, objective.batches)
    same = found.figures() == MEASURES.build(name, **options).measure(free)
    assert same == (options.get("adaptive", False) or options.get("relative", False))  # which move no zero anyway


@every
def test_batches_do_not_matter(name, options):
    if "m" in options:
        pytest.skip("a displacement of its own for every few rows is defined by the batches")
    whole, parts = (MEASURES.build(name, **options).compute(bert_objective(*sizes)) for sizes in ((7,), (3, 3, 1)))
    # float64 rounding, which a search may enlarge
    tolerance = 1e-4 if options.get("products") == "differences" else 1e-6
    assert list(parts.figures().values()) == pytest.approx(list(whole.figures().values()), rel=tolerance)
    assert (whole.effort.rows, whole.effort.batches) == (7, 1)
    assert (parts.effort.rows, parts.effort.batches) == (7, 3)


@every
def test_a_caller_without_gradients(name, options):
    measure = MEASURES.build(name, **options)
    expected = measure.measure(bert_objective(4))
    for mode in (torch.no_grad, torch.inference_mode):
        objective = bert_objective(4)
        with mode():
            assert measure.measure(objective) == pytest.approx(expected, rel=1e-12)


@every
def test_a_watcher_sees_it_begin_and_end(name, options):
    watcher = Watcher()
    measure = MEASURES.build(name, **options)
    measure.measure(bert_objective(3, 2, progress=watcher))
    begun = [entry for entry in watcher.seen if isinstance(entry, tuple)]
    assert watcher.seen.count("end") == len(begun) >= 1
    assert watcher.seen[-1] == "end"
    assert any(isinstance(entry, int) for entry in watcher.seen)
    assert all(isinstance(what, str) and total > 0 for what, total in begun)


@pytest.mark.parametrize("name", MEASURES)
def test_a_summary_and_defaults(name):
    assert MEASURES.summary(name).endswith(".")
    assert "seed" not in MEASURES.options(name)
    assert MEASURES.build(name).measure(bert_objective(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every
def test_on_a_gpu(name, options):
    on_cpu = MEASURES.build(name, **options).measure(bert_objective(3, 2))
    reference = bert_objective(3, 2)
    objective = Objective(reference.model.cuda(), cut(sentences(5), 3, 2))
    found = MEASURES.build(name, **options).measure(objective)
    assert list(found.values()) == pytest.approx(list(on_cpu.values()), rel=1e-4)
