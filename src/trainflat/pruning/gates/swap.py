"""Swaps weights out while other values take their place."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightSwap:
    """Keeps copies of weights, and puts them back bit for bit.

    Memory: one copy of the weights, which lives on between steps because first-touched memory costs a CPU more than the
    copy itself. While it is not needed the copy serves as :meth:`scratch`.

    Attributes:
        copies: The weights as they were when they were last taken out, by name.
        active: Whether they are out now.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self._weights = weights
        self.copies: dict[str, Tensor] = {}
        self.active = False

    @torch.no_grad()
    def take_out(self) -> None:
        """Copies the weights, whose memory may then be written over."""
        for name, p in self._weights.items():
            copy = self.copies.get(name)
            if copy is None or (copy.dtype, copy.device) != (p.dtype, p.device):
                copy = self.copies[name] = torch.empty_like(p, requires_grad=False)
            copy.copy_(p)
        self.active = True

    @torch.no_grad()
    def put_back(self) -> None:
        """Sets the weights to what they were."""
        for name, p in self._weights.items():
            p.copy_(self.copies[name])
        self.active = False

    def scratch(self, name: str, like: Tensor) -> Tensor:
        """Returns memory like a tensor's, with anything in it; a weight's own copy if that fits and is not needed."""
        copy = self.copies.get(name)
        if copy is None or copy.shape != like.shape or self.active:
            return torch.empty_like(like, requires_grad=False)
        return copy
