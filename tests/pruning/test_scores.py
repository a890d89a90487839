"""Every score ranks alike at once and while training; a new one is a file and a line."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.gated_steps import on_noise, small
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.registry import Registry
from trainflat.pruning import PRUNERS, SCORES, Pruner, Score, ScoreInputs
from trainflat.pruning.gates import GATES, GradualPruner


def scored(name: str, model: nn.Module) -> Score:
    """A score with something to rank by."""
    options = {"temperature": 1.0} if name in ("grasp", "gradient-norm") else {}
    score = SCORES.build(name, **options)
    score.begin(prunable(model))
    model.zero_grad()
    on_noise(model).loss(model, {"x": torch.ones(3, 12)}).backward()
    score.observe(0.1)
    return score


@pytest.mark.parametrize("name", SCORES)
def test_a_gradual_pruner_with_one_choice_is_the_one_shot_pruner(name: str) -> None:
    model = small()
    objective = on_noise(model)
    at_once = Pruner(model, 0.6, "layer", seed=3, objective=objective, score=scored(name, model)).select()
    gate = GradualPruner(model, 0.6, "layer", {"name": "linear", "hold": 2}, every=1, score=scored(name, model))
    gate.begin(3, seed=3, objective=objective)
    gate.observe(0.1)
    gate.advance(1)
    assert gate.masks() == at_once


@pytest.mark.parametrize("name", SCORES)
def test_scores_have_the_shapes_of_the_weights_and_keep_their_options(name: str) -> None:
    model = small()
    score = scored(name, model)
    weights = prunable(model)
    values = score.values(ScoreInputs(weights, objective=on_noise(model)))
    assert {n: values[n].shape for n in weights} == {n: w.shape for n, w in weights.items()}
    assert all(getattr(score, key) is not None for key in SCORES.options(name))


class Smallest(Score):
    """Scores a weight by its value, sign and all, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        return {name: self.factor * w.detach() for name, w in inputs.weights.items()}


class SmallestPruner(Pruner, score=Smallest):
    """Drops the smallest."""


class GradualSmallest(GradualPruner, score=Smallest):
    """Drops the smallest."""


def test_a_new_score_is_a_class_and_its_options_are_a_pruners() -> None:
    for member in (SmallestPruner, GradualSmallest):
        registry: Registry[Any] = Registry("pruner", given={"model", "objective", "seed", "masks"}, smallest=member)
        assert {*registry.options("smallest")} - {"sparsity", "scope", "schedule", "every"} == {"factor"}
        assert registry.make("smallest", small(), factor=-1.0).factor == -1.0
        with pytest.raises(InputError, match="a score was given, and options of one besides: factor"):
            member(small(), score=Smallest(), factor=2.0)
    model = small()
    kept = SmallestPruner(model, 0.5, factor=-1.0, scope="layer").select()["0.weight"]
    assert model[0].weight[kept].max() <= model[0].weight[~kept].min()
    assert torch.equal(Pruner(model, 0.5, "layer", score=Smallest(-1.0)).select()["0.weight"], kept)


def test_the_state_of_another_score_is_refused() -> None:
    one, other = (GradualPruner(small(), score=score) for score in (Smallest(), SCORES.build("magnitude")))
    one.begin(200)
    with pytest.raises(InputError, match="another gate, GradualPruner by Smallest, and not of GradualPruner"):
        other.begin(200, state=one.state_dict(), step=3)


@pytest.mark.parametrize("family", [PRUNERS, GATES], ids=["pruners", "gates"])
def test_options_of_named_pruners_are_written_once(family: Registry[Any]) -> None:
    for name, member in family.items():
        if issubclass(member, Pruner | GradualPruner):
            own = inspect.signature(member.score_class).parameters
            assert all(family.options(name)[key].default == p.default for key, p in own.items())
