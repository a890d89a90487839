"""Defines the base class of weight averages: takes in models, and stands in for the weights when asked."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach

_COUNT, _PREFIX = "models", "average."


class Averaging(ABC):
    """A running average of the weights that a training passes through.

    A member says which steps it takes in (``takes``) and how much the next model counts (``share``); everything else is
    here. The average is kept beside the weights, on their device, in float32 at least. Buffers that are numbers are
    averaged too, others (counters, indices) are those of the last model; statistics of batch norm should be taken
    anew for the average, models with LayerNorm have none. Where every model that was taken in holds a zero, so does
    the average: masks stay.

    Torch's own ``AveragedModel`` computes the same, which the tests hold; it keeps a second module, in the dtype of the
    weights, and neither stands in for the model nor goes to safetensors.

    Attributes:
        model: Whose weights are averaged.
        models: How many were taken in so far.

    Example:
        >>> from trainflat.averaging import SWA
        >>> model = nn.Linear(1, 1, bias=False)
        >>> swa = SWA(model, start=0.5)
        >>> for step in range(1, 9):  # four epochs of two steps
        ...     _ = nn.init.constant_(model.weight, step)  # stands for optimizer.step()
        ...     _ = swa.update(step, total_steps=8, steps_per_epoch=2)
        >>> with swa.swapped_in():  # of the ends of the last two epochs
        ...     model.weight.item()
        7.0
        >>> model.weight.item()
        8.0
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self.models = 0
        self._average: dict[str, Tensor] = {}

    @abstractmethod
    def takes(self, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Returns whether the weights after ``step`` optimizer steps, counted from 1, belong to the average."""

    @abstractmethod
    def share(self) -> float:
        """Returns how much the next model counts in the average, in (0, 1]; the first one counts 1 anyway."""

    def update(self, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Takes in the weights after this optimizer step if they belong to the average; returns whether it did."""
        taken = self.takes(step, total_steps, steps_per_epoch)
        if taken:
            self.collect()
        return taken

    @torch.no_grad()
    def collect(self) -> None:
        """Takes in the weights as they are now."""
        now = self._tensors()
        if self.models == 0:
            self._average = {name: tensor.detach().to(_wide(tensor), copy=True) for name, tensor in now.items()}
        else:
            self._follow(now)
            moving = [name for name, tensor in now.items() if tensor.is_floating_point()]
            foreach(
                "lerp_",
                [self._average[name] for name in moving],
                [now[name].to(self._average[name].dtype) for name in moving],
                self.share(),
            )
            for name in now.keys() - moving:
                self._average[name].copy_(now[name])
        self.models += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Puts the average in place of the weights for the block, and restores them afterwards, bit for bit.

        So they are after an exception. As long as nothing was taken in the weights stay as they are.
        """
        if not self.models:
            yield
            return
        origin = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        try:
            self._write(self._average)
            yield
        finally:
            self._write(origin)

    def copy_to_model(self) -> None:
        """Makes the average the model's weights, for good; does nothing as long as nothing was taken in."""
        if self.models:
            self._write(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the average and how many models are in it, as plain tensors that safetensors can hold."""
        count = {_COUNT: torch.tensor(self.models)}
        return count | {_PREFIX + name: tensor for name, tensor in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the average and the number of its models.

        Raises:
            InputError: the state is not one of a model like this.
        """
        count = int(state[_COUNT]) if _COUNT in state else 0
        average = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name != _COUNT}
        now = self._tensors() if count else {}
        wrong = [name for name in {**now, **average} if _shape(now, name) != _shape(average, name)]
        if wrong or _COUNT not in state:
            raise InputError(
                f"the average is of another model: {wrong[0] if wrong else _COUNT} differs. Resume with the same model."
            )
        self.models = count
        self._average = {name: average[name].to(w.device, _wide(w), copy=True) for name, w in now.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """Yields parameters and saved buffers of the model, each once however many names it has."""
        first: dict[int, str] = {}
        named = self.model.state_dict(keep_vars=True).items()
        return {name: t for name, t in named if isinstance(t, Tensor) and first.setdefault(id(t), name) == name}

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(values[name])

    def _follow(self, now: Mapping[str, Tensor]) -> None:
        for name, tensor in now.items():
            self._average[name] = self._average[name].to(tensor.device)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def checked(name: str, value: Any, words: str, fits: Callable[[float], bool]) -> float:
    """Validates a numeric option against a range; rejects booleans.

    Raises:
        InputError: says that ``name`` is ``words``.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max or not fits(value):  # NaN compares false
        raise InputError(f"{name} is {words}, got {value!r}.")
    return float(value)
