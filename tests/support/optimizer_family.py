"""Settings of the table's members for the contract tests, under which a few steps meet every branch."""

from typing import Any

import torch
from torch import nn

from trainflat.optim import OPTIMIZERS, FlatOptimizer

FLAT = [name for name, member in OPTIMIZERS.items() if issubclass(member, FlatOptimizer)]

# Under data parallel each process displaces the weights by a gradient of its own, unless they are synchronised.
OWN_GRADIENT = ["sam", "asam", "esam", "extrapolated"]

# Changed labels are drawn as dropout is, so they are only comparable where both sides draw alike.
_OPTIONS: dict[str, dict[str, Any]] = {
    "looksam": {"k": 2},
    "fisher-ssam": {"refresh": 2},
    "entropy-sgd": {"inner_steps": 2},
    "label-noise": {"probability": 0.0},
}


def options(name: str) -> dict[str, Any]:
    return dict(_OPTIONS.get(name, {}))


def recipe(name: str, **changed: Any) -> dict[str, Any]:
    """As it stands in a recipe."""
    return {"name": name, "lr": 1e-3, "weight_decay": 0.1, **options(name), **changed}


def setting(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    batches = torch.randn(6, 8, 4)
    return model, batches


def train(model, optimizer, batches) -> None:
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def weights(model) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in model.parameters()]
