"""Defaults that are published ones, in one table, and what docstrings say of departures."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import tiny_bert
from trainflat.averaging import AVERAGING
from trainflat.core.registry import Registry
from trainflat.distillation import read_distillation
from trainflat.optim import OPTIMIZERS
from trainflat.protocols import PROTOCOLS
from trainflat.pruning import PRUNERS
from trainflat.pruning.gates import GATES, L0, STRUCTURE_GATES, HardMovement, SoftMovement
from trainflat.quantization import QUANTIZERS

TENTHS, TWENTIETHS = (tuple(round(k / n, 2) for k in range(1, last + 1)) for n, last in ((10, 9), (20, 12)))
PUBLISHED: list[tuple[Registry[Any], str, dict[str, Any]]] = [
    (OPTIMIZERS, "sam", {"rho": 0.05, "p": 2.0, "every": 1}),
    (OPTIMIZERS, "asam", {"rho": 0.5, "eta": 0.01}),
    (OPTIMIZERS, "looksam", {"k": 5}),
    (OPTIMIZERS, "friendlysam", {"sigma": 1.0, "lmbda": 0.6}),
    (OPTIMIZERS, "cram", {"sparsities": (0.5, 0.7, 0.9), "rho": 0.05}),
    (OPTIMIZERS, "entropy-sgd", {"inner_lr": 0.1, "gamma": 0.03, "noise": 1e-4, "alpha": 0.75, "inner_steps": 5}),
    (AVERAGING, "swa", {"start": 0.5, "every": 1.0}),
    (GATES, "pins", {"window": 10, "every": 10, "beta1": 0.85, "beta2": 0.99, "scope": "global"}),
    (GATES, "hard-movement", {"scope": "layer", "score_lr": 1e-2}),
    (GATES, "soft-movement", {"threshold": 0.1, "score_lr": 1e-2}),
    (GATES, "l0", {"score_lr": 0.1}),
    (GATES, "block-movement", {"threshold": 0.1, "score_lr": 1e-2, "block": 32, "feed_forward": "dimension"}),
    (GATES, "block-movement", {"attention_weight": 1.0, "biases": True, "evaluate": "final"}),
    (GATES, "mlpruning", {"penalty": 20000.0, "first_ratio": 10.0, "score_lr": 1e-2, "schedule": "constant"}),
    (STRUCTURE_GATES, "grain", {"term": "task", "alpha": 0.3, "decay": 0.998}),
    (STRUCTURE_GATES, "grain", {"schedule": {"name": "cubic", "start": 0.2, "hold": 0.6}}),
    (GATES, "grasp", {"temperature": 200.0}),
    (GATES, "gradient-norm", {"temperature": 1.0}),
    (PRUNERS, "grasp", {"temperature": 200.0}),
    (PRUNERS, "gradient-norm", {"temperature": 1.0}),
    (QUANTIZERS, "q8bert", {"weights": "tensor", "activations": "ema", "decay": 0.9999, "embeddings": True}),
    (PROTOCOLS, "iterative", {"sparsities": TENTHS, "pruner": "magnitude", "scope": "global", "rewind": 0}),
    (PROTOCOLS, "one-shot", {"sparsities": TWENTIETHS}),
]


@pytest.mark.parametrize(("family", "name", "published"), PUBLISHED, ids=[f"{f.kind} {n}" for f, n, _ in PUBLISHED])
def test_defaults_are_the_published_ones(family: Registry[Any], name: str, published: dict[str, Any]):
    defaults = {key: parameter.default for key, parameter in family.options(name).items()}
    assert {key: defaults[key] for key in published} == published


def test_constants_of_the_published_code_of_movement_pruning():
    assert (SoftMovement.published, L0.published) == (400, 125)
    first = [one(nn.Linear(1, 1)).function.first_score for one in (HardMovement, SoftMovement, L0)]
    assert first == [0, 0, 2.197]
    assert read_distillation({"teacher": "t"}).dump() == {"teacher": "t", "weight": 0.5, "temperature": 2.0}


@pytest.mark.parametrize(
    "name", [name for name in GATES if "unit" in GATES.options(name) or "scope" in GATES.options(name)]
)
def test_a_gate_is_on_the_pooler_and_on_no_bias(name: str):
    """The code of Sanh et al. leaves the pooler whole; that of PINS does too, and prunes biases."""
    weights = GATES.make(name, tiny_bert()).weights
    assert sum("pooler" in one for one in weights) == 1
    assert not any(one.endswith("bias") or w.dim() != 2 for one, w in weights.items())


def test_one_ranking_of_all_scores_may_empty_a_matrix():
    """Where the published code keeps 0.5 % of each."""
    model = nn.Sequential(nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False))
    gate = GATES.make("hard-movement", model, sparsity=0.5, scope="global", schedule="linear")
    gate.begin(total_steps=2)
    with torch.no_grad():
        gate.scores["0.weight"].sub_(1)
    gate.advance(2)
    gate.finish()
    assert not model[0].weight.any()
    assert model[1].weight.all()
