"""Scores that are made of the gradients of training: no passes beyond its own."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.pruning.scores.base import Score


class ObservedScore(Score):
    """Remembers something of every step's gradient; a method writes :meth:`remember` and :meth:`values`.

    The gradients are those that the optimizer steps with, before they are clipped: of the loss that is trained, so of a
    teacher's share too, with dropout, and under SAM at the perturbed weights. θ stands where the step begins. A step
    whose gradients are not finite, which a loss scaler skips, is not remembered.

    Memory: one tensor like the weights, in float32 at least, for each of ``remembers``.

    Attributes:
        seen: How many steps were remembered.
        memory: What is remembered, by its name and the weight's.
    """

    observes: ClassVar[bool] = True

    remembers: ClassVar[tuple[str, ...]]
    """Names of what is remembered of each weight; all of it is 0 in the beginning."""

    seen: int = 0

    def begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights, self.seen = weights, 0
        self.memory: dict[str, dict[str, Tensor]] = {
            what: {name: torch.zeros_like(w, dtype=_wide(w), requires_grad=False) for name, w in weights.items()}
            for what in self.remembers
        }

    @property
    def ready(self) -> bool:
        return self.seen > 0

    @torch.no_grad()
    def observe(self, lr: float, scale: float = 1.0) -> None:
        grads = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
        if not grads or not all(norm.isfinite() for norm in foreach("norm", [*grads.values()], float("inf"))):
            return
        self.seen += 1
        for name, grad in grads.items():
            self.remember(name, self.weights[name].to(_wide(grad)), grad.to(_wide(grad)) / scale, lr)

    @abstractmethod
    def remember(self, name: str, weight: Tensor, grad: Tensor, lr: float) -> None:
        """Takes in one weight's gradient, which may be written over; ``seen`` counts this step already."""

    def require_seen(self) -> None:
        """Raises InputError where there is nothing to rank by."""
        if not self.seen:
            raise InputError(
                f"{type(self).__name__} ranks by gradients and has seen none. Call observe(lr) before each step of "
                "the optimizer."
            )

    def state_dict(self) -> dict[str, Tensor]:
        kept = {f"{what}.{name}": t for what, named in self.memory.items() for name, t in named.items()}
        return kept | {"seen": torch.tensor(self.seen)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for what, named in self.memory.items():
            for name, tensor in named.items():
                tensor.copy_(state[f"{what}.{name}"])
        self.seen = int(state["seen"])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
