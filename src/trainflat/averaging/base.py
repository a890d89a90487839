"""Defines the base class of weight averages: updates the average, and swaps it in for the weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy.params import unwrapped
from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach

_COUNT, _PREFIX = "models", "average."


class Averaging(Configurable, ABC):
    """Base of the running averages of a model's weights along a training.

    A subclass says after which steps the weights enter the average (:meth:`is_due`) and with which weight
    (:meth:`share`). The average is kept beside the weights, on their device, in float32 at least. Floating-point
    buffers are averaged too; others (counters, indices) are copied from the last model. Statistics of batch norm should
    be computed anew for the average; models with LayerNorm have none. A weight that is zero in every averaged model is
    zero in the average, so masks stay.

    torch's ``AveragedModel`` computes the same average, as the tests check; it keeps a second module, in the
    weights' dtype, beside the model, where this one is swapped in for the model's own weights.

    Attributes:
        model: The model whose weights are averaged, without wrappers.
        models: Number of models in the average so far.

    Example:
        >>> from trainflat.averaging import SWA
        >>> model = nn.Linear(1, 1, bias=False)
        >>> swa = SWA(model, start=0.5)
        >>> for step in range(1, 9):  # four epochs of two steps
        ...     _ = nn.init.constant_(model.weight, step)  # stands for optimizer.step()
        ...     _ = swa.update(step, total_steps=8, steps_per_epoch=2)
        >>> with swa.swapped_in():  # the mean of the last two epochs' ends, 6 and 8
        ...     model.weight.item()
        7.0
        >>> model.weight.item()
        8.0
    """

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model = unwrapped(model)
        self.models = 0
        self._average: dict[str, Tensor] = {}

    @staticmethod
    @abstractmethod
    def is_due(options: Any, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Returns whether the weights after ``step`` optimizer steps, counted from 1, enter the average.

        Args:
            options: Has the member's options as attributes: its settings, before there is a model, or the member.
            step: Optimizer steps taken.
            total_steps: Optimizer steps of the training.
            steps_per_epoch: Optimizer steps of one epoch.
        """

    def takes(self, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Returns whether this average takes in the weights after a step; see :meth:`is_due`."""
        return self.is_due(self, step, total_steps, steps_per_epoch)

    @abstractmethod
    def share(self) -> float:
        """Returns the weight of the next model in the average, in (0, 1]; the first model's is always 1."""

    def update(self, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Averages in the weights after this optimizer step if :meth:`takes` says so; returns whether it did."""
        taken = self.takes(step, total_steps, steps_per_epoch)
        if taken:
            self.collect()
        return taken

    @torch.no_grad()
    def collect(self) -> None:
        """Averages in the current weights."""
        now = self._tensors()
        if self.models == 0:
            self._average = {name: tensor.detach().to(_wide(tensor), copy=True) for name, tensor in now.items()}
        else:
            self._follow(now)
            moving = [name for name, tensor in now.items() if tensor.is_floating_point()]
            # average += share * (weights - average), in place: (average * n + weights) / (n + 1) would need a copy, and
            # a running sum would lose digits as n grows.
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

        They are restored after an exception, too. As long as the average is empty the weights stay as they are.
        """
        if not self.models:
            yield
            return
        # A copy, though the weights could be swapped by pointer: optimizers, hooks and captured graphs hold the
        # tensors.
        origin = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        try:
            self._write(self._average)
            yield
        finally:
            self._write(origin)

    def copy_to_model(self) -> None:
        """Replaces the model's weights by the average, for good; does nothing as long as the average is empty."""
        if self.models:
            self._write(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the average and the number of its models, as tensors, which are all that safetensors can hold."""
        count = {_COUNT: torch.tensor(self.models)}
        return count | {_PREFIX + name: tensor for name, tensor in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the average and the number of its models.

        Raises:
            InputError: names or shapes are not those of this model.
        """
        # A missing tensor would be averaged from garbage, an extra one silently dropped: names and shapes must all
        # agree.
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
        """Returns parameters and saved buffers of the model, each once however many names it has."""
        # A tied embedding has two names; averaged under both it would move twice per model.
        first: dict[int, str] = {}
        named = self.model.state_dict(keep_vars=True).items()
        return {name: t for name, t in named if isinstance(t, Tensor) and first.setdefault(id(t), name) == name}

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(values[name])

    def _follow(self, now: Mapping[str, Tensor]) -> None:
        """Moves the average to the devices of the weights, which may have moved since the last model."""
        for name, tensor in now.items():
            self._average[name] = self._average[name].to(tensor.device)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
