"""The micro-batches behind one optimizer step, kept so that they can be run twice."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Replay:
    """One micro-batch and the state of the random generators before its first pass, so that dropout can be repeated."""

    inputs: dict[str, Any]
    rows: int
    cpu_state: Tensor
    device_state: Tensor | None
    losses: Tensor = field(default_factory=lambda: torch.zeros(()))  # of its rows in pass 1, where a method weighs them

    def restore_random_state(self) -> None:
        """Makes the next pass draw what the first pass drew."""
        torch.set_rng_state(self.cpu_state)
        if self.device_state is not None:
            torch.cuda.set_rng_state(self.device_state)

    def only(self, chosen: Tensor) -> "Replay":
        """The same with some of its rows; ``chosen`` [B] is boolean."""
        inputs = {key: value[chosen.to(value.device)] for key, value in self.inputs.items()}
        return Replay(inputs, int(chosen.sum()), self.cpu_state, self.device_state)


@dataclass
class Window:
    """An accumulation window; ``rows`` are those of each micro-batch it will hold."""

    rows: list[int] = field(default_factory=list)
    batches: list[Replay] = field(default_factory=list)
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def total_rows(self) -> int:
        """Rows behind the step."""
        return sum(self.rows)

    @property
    def complete(self) -> bool:
        """Whether every micro-batch has been seen."""
        return len(self.batches) >= len(self.rows)

    def add(self, inputs: dict[str, Any], device: torch.device) -> Replay:
        """The next micro-batch."""
        index = len(self.batches)
        device_state = torch.cuda.get_rng_state() if device.type == "cuda" else None
        self.loss = self.loss.to(device)
        self.batches.append(Replay(inputs, self.rows[index], torch.get_rng_state(), device_state))
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


def rows_of(batch: Mapping[str, Any]) -> int:
    """How many rows a batch holds."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())
