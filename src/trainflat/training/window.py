"""Keeps the micro-batches of one optimizer step, so that they can be run twice."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.training.shares import Size


@dataclass
class Replay:
    """Holds a micro-batch and the random state before its first pass, so that dropout can be repeated."""

    inputs: dict[str, Any]
    size: Size
    cpu_state: Tensor
    device_state: Tensor | None
    losses: Tensor = field(default_factory=lambda: torch.zeros(()))  # of its rows in pass 1, where a method weighs them

    def restore_random_state(self) -> None:
        """Makes the next pass draw what the first pass drew."""
        torch.set_rng_state(self.cpu_state)
        if self.device_state is not None:
            torch.cuda.set_rng_state(self.device_state)

    @property
    def rows(self) -> int:
        """Counts the rows."""
        return self.size.rows

    def only(self, chosen: Tensor, size_of: Callable[[dict[str, Any]], Size]) -> "Replay":
        """Selects some of the rows; ``chosen`` [B] is boolean."""
        inputs = {key: value[chosen.to(value.device)] for key, value in self.inputs.items()}
        return Replay(inputs, size_of(inputs), self.cpu_state, self.device_state)


@dataclass
class Window:
    """Holds an accumulation window; ``sizes`` are of the micro-batches to come, ``size`` of all together."""

    sizes: list[Size] = field(default_factory=list)
    size: Size = field(default_factory=lambda: Size(0, {}))
    batches: list[Replay] = field(default_factory=list)
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Returns whether all micro-batches were added."""
        return len(self.batches) >= len(self.sizes)

    def add(self, inputs: dict[str, Any], device: torch.device) -> Replay:
        """Adds the next micro-batch."""
        index = len(self.batches)
        device_state = torch.cuda.get_rng_state() if device.type == "cuda" else None
        self.loss = self.loss.to(device)
        self.batches.append(Replay(inputs, self.sizes[index], torch.get_rng_state(), device_state))
        return self.batches[-1]


PutBack = Callable[[], AbstractContextManager[None]]


@contextmanager
def gradients_set_aside(parameters: Iterable[nn.Parameter]) -> Iterator[PutBack]:
    """Clears gradients for the block; yields a callable that restores the earlier ones, to be accumulated into."""
    params = list(parameters)
    earlier = [p.grad for p in params]
    for p in params:
        p.grad = None

    @contextmanager
    def put_back() -> Iterator[None]:
        for p, gradient in zip(params, earlier, strict=True):
            p.grad = gradient
        yield

    yield put_back
