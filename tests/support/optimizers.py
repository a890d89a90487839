"""A small network and its passes, for the tests of optimizers."""

import torch
from torch import Tensor, nn


def problem(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 1))
    inputs = torch.randn(12, 4)

    def passes() -> Tensor:
        model.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    return model, passes


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def two_passes(optimizer, passes) -> None:
    passes()
    with optimizer.perturbed():
        passes()
    optimizer.step()


def problem_inputs() -> Tensor:
    torch.manual_seed(0)
    nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 1))
    return torch.randn(12, 4)
