"""A quadratic in float64, on which every step is known in closed form."""

import torch
from torch import Tensor, nn

CURVATURE = torch.tensor([1.0, 10.0, 3.0, 0.5], dtype=torch.float64)
START = torch.tensor([3.0, -0.4, 1.0, 2.0], dtype=torch.float64)
LR = 0.02


class Quadratic:
    """L(w) = w . (h w) / 2 + shift . w over two parameters of two entries, so that norms have to be joint."""

    def __init__(self, scale: float = 1.0) -> None:
        self.params = [nn.Parameter(part.clone()) for part in START.split(2)]
        self.shift, self.scale = torch.zeros_like(START), scale

    @property
    def w(self) -> Tensor:
        return torch.cat([p.detach() for p in self.params])

    def closure(self) -> float:
        for p in self.params:
            p.grad = None
        w = torch.cat(self.params)
        loss = (w * CURVATURE * w).sum() / 2 + (self.shift * w).sum()
        (self.scale * loss).backward()
        return loss.item()

    def gradient(self, w: Tensor) -> Tensor:
        return CURVATURE * w + self.shift


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


def shifts(steps: int) -> Tensor:
    """The noise of mini-batches."""
    return torch.randn(steps, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
