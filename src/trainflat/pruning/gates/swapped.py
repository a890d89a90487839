"""Gates that are swapped in for the passes of a step: the model computes with gated weights, and the others live on."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.pruning.gates.base import Gate


class SwappedGate(Gate):
    """Before the first forward pass the gate writes what the model computes with over its weights, and keeps them.

    After the last backward pass it puts them back, bit for bit, and turns the gradient of what was computed with into
    that of weights and scores, in closed form. No module is patched and nothing is added to autograd's graph, so
    accumulation, data parallel, autocast, ``torch.compile`` and gradient checkpointing are as without a gate.
    A flat optimizer sees weights and gradients only between passes: it displaces the weights behind the gate, and the
    second pass computes with the gate of these, as autograd through the gate would.

    A method writes :meth:`place` and :meth:`pull_back`.

    Memory: one copy of the gated weights, which lives on between steps because first-touched memory costs a CPU more
    than the copy itself. While the gate is not in place the copy serves as :meth:`scratch`.
    """

    needs_weights: bool = True

    _kept: dict[str, Tensor]
    _earlier: dict[nn.Parameter, Tensor]

    @abstractmethod
    def place(self, name: str, weight: Tensor, kept: Tensor) -> None:
        """Turns a weight into what the model computes with, in place; ``kept`` is its copy, and only read."""

    @abstractmethod
    def pull_back(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Turns the gradient of what was computed with into that of the weight, in place; makes that of the scores.

        Args:
            name: Of the weight.
            weight: As it was before :meth:`place`.
            gradient: Summed over the passes of the step and reduced over processes.
        """

    def prepare(self) -> None:
        self._kept, self._earlier = {}, {}
        self._in_place = self._applied = False

    @torch.no_grad()
    def open(self) -> None:
        if self._in_place:
            return
        for p in (*self.weights.values(), *self.scores.values()):
            if p.grad is not None:  # of micro-batches that have been pulled back already
                self._earlier[p], p.grad = p.grad, None
        for name, p in self.weights.items():
            self._keep(name, p)
        self._in_place = True
        for name, p in self.weights.items():
            self.place(name, p, self._kept[name])

    @torch.no_grad()
    def close(self, weight: float = 1.0) -> None:
        if not self._in_place:
            return
        self._put_back()
        for name, p in self.weights.items():
            if p.grad is not None:
                self.pull_back(name, p, p.grad)
        self.penalize(weight)
        for p, earlier in self._earlier.items():
            p.grad = earlier if p.grad is None else p.grad.add_(earlier)
        self._earlier.clear()

    def abandon(self) -> None:
        if self._in_place:
            self._put_back()
        self._earlier.clear()

    def scratch(self, name: str, shape: torch.Size) -> Tensor:
        """Memory of a shape and of the weight's dtype, with anything in it, while the gate is not in place."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape or self._in_place:
            return torch.empty(shape, dtype=self.weights[name].dtype, device=self.weights[name].device)
        return kept

    def penalize(self, weight: float) -> None:
        """Adds the gradient of a penalty on the scores to theirs, times ``weight``."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self._applied:  # inside another such block: what is kept are the weights, and must stay so
            yield
            return
        if self._in_place:
            raise InputError("applied() was called inside passes(), where a step computes. Leave passes() first.")
        masks = self.masks()
        with torch.no_grad():
            for name, p in self.weights.items():
                self._keep(name, p)
        self._in_place = self._applied = True
        try:
            with torch.no_grad():
                self.settle()
            masks.apply_(self.model)
            yield
        finally:
            self._applied = False
            self._put_back()

    @torch.no_grad()
    def _keep(self, name: str, p: nn.Parameter) -> None:
        kept = self._kept.get(name)
        if kept is None or (kept.dtype, kept.device) != (p.dtype, p.device):
            kept = self._kept[name] = torch.empty_like(p, requires_grad=False)
        kept.copy_(p)

    @torch.no_grad()
    def _put_back(self) -> None:
        for name, p in self.weights.items():
            p.copy_(self._kept[name])
        self._in_place = False
