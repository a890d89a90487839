"""Defines the base class of reparametrizations w = f(θ), element by element."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainflat.anatomy.params import prunable
from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError


class Reparametrization(Configurable, ABC):
    """Keeps θ in the model's matrices between passes, w = f(θ) during passes, and gradients of θ after them.

    No module is patched and no name changes. Optimizers, weight decay, clipping and momentum see θ, and SAM's ball is
    around θ: in w it is wide where weights are large and has no width where they are 0. The gradient of a weight is
    turned into the gradient of θ before it is accumulated or reduced over processes, so accumulation and data parallel
    work as ever. Memory: one copy of the matrices. A subclass implements :meth:`weight_of`, :meth:`theta_of` and
    :meth:`slope`.

    Args:
        model: Its trainable :func:`~trainflat.anatomy.params.prunable` matrices are reparametrised; biases, LayerNorm,
            embeddings, the task head and frozen matrices are not.

    Raises:
        InputError: the model has no such matrices.

    Example:
        >>> from trainflat.reparametrization import Powerprop
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Powerprop(model).training() as power:
        ...     with power.weights_in_place():
        ...         model(torch.ones(4, 2)).sum().backward()
        ...     optimizer.step()
    """

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weights: dict[str, nn.Parameter] = {n: p for n, p in prunable(model).items() if p.requires_grad}
        if not self.weights:
            raise InputError(f"{type(model).__name__} has no trainable matrices to reparametrise. Unfreeze some.")
        self._held = False  # between begin() and end(): the matrices hold θ, or f(θ) inside weights_in_place()
        self._kept: dict[str, Tensor] = {}  # θ, while the matrices hold f(θ)

    @abstractmethod
    def weight_of(self, theta: Tensor) -> Tensor:
        """Computes f(θ) into a new tensor."""

    @abstractmethod
    def theta_of(self, weight: Tensor) -> Tensor:
        """Computes the inverse of f, the θ of a weight, into a new tensor."""

    @abstractmethod
    def slope(self, theta: Tensor) -> Tensor:
        """Computes f'(θ), which turns a gradient of w into one of θ."""

    @contextmanager
    def training(self) -> Iterator[Self]:
        """Replaces the matrices by θ for the block, and puts weights back afterwards, also after an exception."""
        self.begin()
        try:
            yield self
        finally:
            self.end()

    @torch.no_grad()
    def begin(self, theta: Mapping[str, Tensor] | None = None) -> None:
        """Replaces the matrices by θ, computed from the weights or, on resuming, read from a checkpoint.

        Read, because f(θ) and back is not θ to the last bit, and a resumed run would take another path.
        """
        for name, p in self.weights.items():
            p.copy_(self.theta_of(p) if theta is None else theta[name])
        self._held = True

    @torch.no_grad()
    def end(self) -> None:
        """Replaces θ by weights for good; does nothing if they are weights already."""
        if self._held:
            for p in self.weights.values():
                p.copy_(self.weight_of(p))
        self.forget()

    def forget(self) -> None:
        """Ends without writing, for callers that have put weights into the matrices (the best checkpoint's)."""
        self._held = False
        self._kept.clear()

    def theta(self) -> dict[str, Tensor]:
        """Returns θ by name, for a checkpoint."""
        return {name: (self._kept or self.weights)[name].detach().clone() for name in self.weights}

    @contextmanager
    def weights_in_place(self) -> Iterator[None]:
        """Puts f(θ) into the matrices for passes or evaluations in the block, then θ back, bit for bit.

        Gradients of passes inside the block are gradients of θ. Outside :meth:`training`, and nested in itself, it does
        nothing, so that evaluations may use it wherever they run.
        """
        if not self._held or self._kept:
            yield
            return
        with torch.no_grad():
            self._kept = {name: p.detach().clone() for name, p in self.weights.items()}
            for name, p in self.weights.items():
                p.copy_(self.weight_of(self._kept[name]))
        hooks = [self._hook(name, p) for name, p in self.weights.items()]
        try:
            yield
        finally:
            self._put_back(hooks)

    def _hook(self, name: str, p: nn.Parameter) -> torch.utils.hooks.RemovableHandle:
        def turn(gradient: Tensor) -> Tensor:
            # Not by autograd through f, which gives NaN at 0 for some f and would keep f in every graph.
            return gradient * self.slope(self._kept[name]).to(gradient.dtype)

        handle: torch.utils.hooks.RemovableHandle = p.register_hook(turn)  # type: ignore[no-untyped-call]
        return handle

    @torch.no_grad()
    def _put_back(self, hooks: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
        for hook in hooks:
            hook.remove()
        for name, theta in self._kept.items():
            self.weights[name].copy_(theta)
        self._kept.clear()
