"""The micro-batches behind one optimizer step, kept so that they can be run twice."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.training.shares import Size


@dataclass
class Replay:
    """One micro-batch and the state of the random generators before its first pass, so that dropout can be repeated."""

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
        """How many rows it has."""
        return self.size.rows

    def only(self, chosen: Tensor, size_of: Callable[[dict[str, Any]], Size]) -> "Replay":
        """The same with some of its rows; ``chosen`` [B] is boolean."""
        inputs = {key: value[chosen.to(value.device)] for key, value in self.inputs.items()}
        return Replay(inputs, size_of(inputs), self.cpu_state, self.device_state)


@dataclass
class Window:
    """An accumulation window; ``sizes`` are those of the micro-batches it will hold, ``size`` is that of all."""

    sizes: list[Size] = field(default_factory=list)
    size: Size = field(default_factory=lambda: Size(0, {}))
    batches: list[Replay] = field(default_factory=list)
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Whether every micro-batch has been seen."""
        return len(self.batches) >= len(self.sizes)

    def add(self, inputs: dict[str, Any], device: torch.device) -> Replay:
        """The next micro-batch."""
        index = len(self.batches)
        device_state = torch.cuda.get_rng_state() if device.type == "cuda" else None
        self.loss = self.loss.to(device)
        self.batches.append(Replay(inputs, self.sizes[index], torch.get_rng_state(), device_state))
        return self.batches[-1]


PutBack = Callable[[], AbstractContextManager[None]]


@contextmanager
def gradients_set_aside(parameters: Iterable[nn.Parameter]) -> Iterator[PutBack]:
    """Inside the block gradients start from none; the callable it gives puts back the earlier ones, to be added to."""
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
