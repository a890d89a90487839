"""Gates outside the Trainer: options under which fifty steps meet every branch, models and batches in float64."""

from typing import Any

import torch
from torch import nn

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT
from trainflat.objective import Objective
from trainflat.pruning.gates import GATES, LearnedMask

RAMP = {"name": "cubic", "start": 5, "hold": 10}


SCORED: dict[str, dict[str, Any]] = {
    "hard-movement": {"sparsity": 0.7, "refresh": 1, "schedule": RAMP},
    "soft-movement": {"penalty": 4.0, "score_lr": 0.1, "schedule": RAMP},
    "l0": {"penalty": 2.0, "schedule": RAMP},
    "block-movement": {"penalty": 4.0, "score_lr": 0.1, "block": 4, "feed_forward_weight": 0.5, "schedule": RAMP},
    "mlpruning": {"target_sparsity": 0.6, "penalty": 3.0, "first_ratio": 1.0, "score_lr": 0.1, "schedule": RAMP},
}


STEPS = 50


def model(**options: Any) -> nn.Module:
    return tiny_bert(**(NO_DROPOUT | options)).double()


def batches(steps: int = STEPS) -> list[dict[str, torch.Tensor]]:
    split = random_split(96)
    return [collate([split[(8 * step + i) % 96] for i in range(8)]) for step in range(steps)]


def begun(one: nn.Module, name: str, options: dict[str, Any], steps: int = STEPS) -> LearnedMask:
    gate = GATES.make(name, one, **options)
    assert isinstance(gate, LearnedMask)
    gate.begin(steps)
    return gate


def shaken(gate: LearnedMask, step: int) -> None:
    """Scores on both sides of every threshold, in the middle of the run."""
    generator = torch.Generator().manual_seed(7)
    for score in gate.scores.values():
        score.data.add_(3 * torch.randn(score.shape, generator=generator, dtype=score.dtype))
    gate.advance(step)


def assert_same(ours: list[Any], theirs: list[Any], atol: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=atol)


def on_noise(model: nn.Module) -> Objective:
    """For gates that measure the loss."""
    noise = torch.randn(16, 12, generator=torch.Generator().manual_seed(5))
    return Objective(model, [{"x": noise}], loss=lambda model, batch: model(batch["x"]).square().mean())


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))
