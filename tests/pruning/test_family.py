"""What every pruner promises, over the table; and each score against its definition."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import tiny_bert
from tests.support.objectives import cut, sentences
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError, UnknownName
from trainflat.objective import Objective
from trainflat.pruning import (
    PRUNERS,
    LayerShuffledPruner,
    MagnitudePruner,
    Masks,
    Pruner,
    RandomPruner,
    keep_highest,
    shuffled_within_layers,
)
from trainflat.recipe import load_recipe


def with_a_loss(member: type[Pruner]) -> Callable[..., Pruner]:
    """Every member is made alike: those that score by no loss never look at it."""

    def make(model: nn.Module, *args: Any, **options: Any) -> Pruner:
        return member(model, *args, objective=lambda rows, size: Objective(model, cut(sentences(6), 4, 2)), **options)

    return make


every = pytest.mark.parametrize("method", [*map(with_a_loss, PRUNERS.values())], ids=PRUNERS.keys())
scopes = pytest.mark.parametrize("scope", ["global", "layer"])


@every
@scopes
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.9])
def test_exact_count(method, scope, sparsity):
    model = tiny_bert()
    masks = method(model, sparsity=sparsity, scope=scope, seed=3).prune()
    sizes = {name: w.numel() for name, w in prunable(model).items()}
    assert [m.name for m in masks.statistics()] == list(sizes)
    if scope == "layer":
        assert [m.zeros for m in masks.statistics()] == [round(sparsity * n) for n in sizes.values()]
    else:
        assert masks.zeros == round(sparsity * sum(sizes.values()))
    masks.check(model)
    assert sum(int((w == 0).sum()) for w in prunable(model).values()) == masks.zeros


@every
@scopes
def test_sparser_is_a_subset_of_denser(method, scope):
    model = tiny_bert()
    chain = [method(model, sparsity=s / 10, scope=scope, seed=1).select() for s in range(10)]
    assert all(sparser.issubset(denser) for denser, sparser in pairwise(chain))


@every
def test_masks_given_stay_pruned_though_their_weights_came_back(method):
    model = tiny_bert()
    held = method(model, sparsity=0.4, seed=1).select()
    torch.manual_seed(5)
    with torch.no_grad():
        for w in prunable(model).values():
            w.normal_()
    masks = method(model, sparsity=0.5, masks=held, seed=2).select()
    assert masks.issubset(held)
    assert masks.sparsity == 0.5


@every
def test_selecting_changes_nothing_and_repeats(method):
    model = tiny_bert()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    pruner = method(model, sparsity=0.5, seed=1)
    assert pruner.select() == pruner.select()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    masks = pruner.prune()
    rest = {name: tensor for name, tensor in model.state_dict().items() if name not in masks}
    assert all(torch.equal(tensor, before[name]) for name, tensor in rest.items())


@every
def test_scores_have_the_shapes_of_the_weights(method):
    model = tiny_bert()
    assert {n: s.shape for n, s in method(model).scores().items()} == {n: w.shape for n, w in prunable(model).items()}


@every
def test_refusals(method):
    with pytest.raises(InputError, match=r"sparsity is the share of weights to drop, in \[0, 1\), got 90"):
        method(nn.Linear(2, 2), sparsity=90)
    with pytest.raises(InputError, match="LayerNorm has no prunable weights"):
        method(nn.LayerNorm(4))
    with pytest.raises(UnknownName, match="no scope is called 'matrix'"):
        method(nn.Linear(2, 2), scope="matrix")
    other = Masks({"weight": torch.ones(3, 3, dtype=torch.bool)})
    with pytest.raises(InputError, match="weight is masked"):
        method(nn.Linear(2, 2), masks=other)


@pytest.mark.parametrize("name", PRUNERS)
def test_recipes_may_set_what_is_the_methods_own(name):
    assert not {"model", "sparsity", "scope", "masks", "seed", "objective"} & set(PRUNERS.options(name))
    assert PRUNERS.summary(name).endswith(".")
    settings = PRUNERS.read(name)
    assert PRUNERS.read(settings.section()) == settings
    written = load_recipe({"task": "cola", "model": "minilm", "protocol": {"name": "one-shot", "pruner": name}})
    assert isinstance(written.resolved()["protocol"]["pruner"], str) == (not PRUNERS.options(name))


def test_magnitude_drops_the_smallest():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1, -4.0], [3.0, -0.2]]))
        model[1].weight.copy_(torch.tensor([[-0.3, 5.0]]))
    masks = MagnitudePruner(model, sparsity=0.5).prune()
    assert model[0].weight.tolist() == [[0.0, -4.0], [3.0, 0.0]]
    assert model[1].weight.tolist() == [[0.0, 5.0]]
    assert masks.zeros == 3
    scores = MagnitudePruner(model).scores()
    assert torch.equal(scores["0.weight"], model[0].weight.abs())


@pytest.mark.parametrize("steps", [[0.3, 0.6, 0.9], [0.9]])
def test_layer_shuffled_has_the_counts_of_magnitude_pruning(steps):
    model = tiny_bert()
    with torch.no_grad():  # matrices whose densities differ
        for i, w in enumerate(prunable(model).values()):
            w.mul_(1 + i % 4)
    magnitude, shuffled = None, None
    for sparsity in steps:
        magnitude = MagnitudePruner(model, sparsity=sparsity, masks=magnitude).select()
        held = shuffled
        shuffled = LayerShuffledPruner(model, sparsity=sparsity, masks=held, seed=1).select()
        assert held is None or shuffled.issubset(held)
    if len(steps) == 1:
        assert shuffled.statistics() == magnitude.statistics()
    assert len({m.zeros / m.entries for m in shuffled.statistics()}) > 3
    assert shuffled != magnitude


def test_layer_shuffled_under_masks_has_the_counts_of_magnitude_pruning_under_them():
    model = tiny_bert()
    held = RandomPruner(model, sparsity=0.3, seed=8).select()
    magnitude = MagnitudePruner(model, sparsity=0.6, masks=held).select()
    assert LayerShuffledPruner(model, sparsity=0.6, masks=held, seed=1).select().statistics() == magnitude.statistics()


def test_shuffling_keeps_counts_and_follows_the_seed():
    masks = MagnitudePruner(tiny_bert(), sparsity=0.7).select()
    one, again, other = (shuffled_within_layers(masks, seed) for seed in (1, 1, 2))
    assert one.statistics() == masks.statistics()
    assert one == again
    assert len({masks.sha256, one.sha256, other.sha256}) == 3


@pytest.mark.parametrize("positions", [RandomPruner, LayerShuffledPruner])
def test_chance_is_even(positions):
    model = nn.Linear(20, 10, bias=False)
    draws = 400
    kept = sum(positions(model, sparsity=0.75, seed=seed).select()["weight"].double() for seed in range(draws))
    # each entry is kept by a coin of 1/4; the largest of 200 deviations stays below 4.5 standard errors
    assert (kept - draws / 4).abs().max() < 4.5 * (draws * 0.25 * 0.75) ** 0.5


def test_seeds_differ():
    model = tiny_bert()
    assert len({RandomPruner(model, seed=seed).select().sha256 for seed in range(5)}) == 5


def test_nan_weights_are_named():
    model = tiny_bert()
    name, weight = list(prunable(model).items())[4]
    with torch.no_grad():
        weight[1, 1] = torch.nan
    with pytest.raises(InputError, match=f"the scores of {name} contain NaN"):
        MagnitudePruner(model).select()


def test_half_precision_models_are_cut_by_their_own_values():
    model = tiny_bert().bfloat16()  # many ties
    masks = MagnitudePruner(model, sparsity=0.8).select()
    assert masks == keep_highest({n: w.detach().double().abs() for n, w in prunable(model).items()}, 0.8)
