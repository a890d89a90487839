"""Gates that set weights to zero while training goes on, more and more of them, and none comes back."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.schedules import Schedule
from trainflat.pruning.base import Scope, keep_highest
from trainflat.pruning.gates.base import Gate
from trainflat.pruning.gates.checks import known_scope, share_to_drop, whole
from trainflat.pruning.masks import Masks


class HeldGate(Gate):
    """Every so many steps drops the weights with the lowest scores; zeros stay zero. A method writes ``importance``.

    Pruned weights get no gradient and are set to zero again after each step, so optimizers, displacements and weight
    decay never move them (:class:`~trainflat.pruning.MaskEnforcer`). Departs from Zhu and Gupta (2017), and from the
    magnitude baseline of Sanh et al. (2020), which chooses anew in every forward pass: there a pruned weight keeps its
    value behind the mask and returns if others shrink below it.

    Args:
        model: Whose weights are pruned.
        sparsity: Share of the weights to drop in the end, in [0, 1).
        scope: ``"layer"`` ranks each matrix on its own, ``"global"`` all weights together.
        schedule: When the sparsity rises; see :class:`~trainflat.pruning.gates.base.Gate`.
        every: Optimizer steps between two choices; one more is made where the schedule arrives.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        scope: Scope = "layer",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        every: int = 100,
    ) -> None:
        super().__init__(model, schedule)
        self.sparsity, self.scope = share_to_drop(sparsity), known_scope(scope)
        self.every = whole("every", every)

    @abstractmethod
    def importance(self) -> Mapping[str, Tensor]:
        """One number per weight, of the weight's shape; the lowest go."""

    @property
    def ready(self) -> bool:
        """Whether there is something to rank by; else the choice waits."""
        return True

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.sparsity

    def prepare(self) -> None:
        self.refuse_denser_than(self.sparsity)
        self._dropped = 0.0
        self._hold(Masks.ones(self.weights))

    def advance(self, step: int) -> None:
        self.step = step
        wanted = self.schedule.value(step, self.total_steps, 0.0, self.sparsity)
        if wanted > self._dropped and self.ready and (step % self.every == 0 or self.settled):
            self._dropped = wanted
            self._hold(keep_highest(self.importance(), wanted, self.scope, self._masks))

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self.held is not None:
            self.held.mask_weights()  # zeros already, but in an average of weights that stands in for them
        yield

    def masks(self) -> Masks:
        return self._masks

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {
            "dropped": torch.tensor(self._dropped, dtype=torch.float64),
            **{f"masks.{name}": torch.from_numpy(bits) for name, bits in self._masks.packed.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        shapes = {name: tuple(w.shape) for name, w in self.weights.items()}
        for name, shape in shapes.items():
            if f"masks.{name}" not in state or state[f"masks.{name}"].numel() != (prod(shape) + 7) // 8:
                raise InputError(f"the masks are of another model: {name} differs. Resume with the same model.")
        self._dropped = float(state["dropped"])
        self._hold(Masks.of_packed({name: state[f"masks.{name}"].cpu().numpy() for name in shapes}, shapes))

    def _hold(self, masks: Masks) -> None:
        self._masks = masks
        if self.held is None:
            self.held = masks.hold(self.model)
        else:
            self.held.replace(masks)
        self.held.mask_weights()
