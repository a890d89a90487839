"""Gates that rank weights by the gradients that training made: no passes beyond its own."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.pruning.gates.held import HeldGate


class ObservedGate(HeldGate):
    """Remembers something of every step's gradient; a method writes ``remember`` and ``importance``.

    The gradients are those that the optimizer steps with, before they are clipped: of the loss that is trained, so of a
    teacher's share too, with dropout, and under SAM at the displaced weights. θ stands where the step begins. A step
    whose gradients are not finite, which a loss scaler skips, is not remembered. No choice is made before the first
    gradient was seen.

    Memory: one tensor like the weights, in float32 at least, for each of ``remembers``.

    Args:
        given: As for :class:`HeldGate`.
    """

    observes: ClassVar[bool] = True

    remembers: ClassVar[tuple[str, ...]]
    """Names of what is remembered of each weight; all of it is 0 in the beginning."""

    def prepare(self) -> None:
        super().prepare()
        self.seen = 0
        self.memory: dict[str, dict[str, Tensor]] = {
            what: {name: torch.zeros_like(w, dtype=_wide(w), requires_grad=False) for name, w in self.weights.items()}
            for what in self.remembers
        }

    def check_schedule(self, total_steps: int) -> None:
        super().check_schedule(total_steps)
        if self.schedule.share(0, total_steps) > 0:
            raise InputError(
                f"the schedule prunes before the first step, and {type(self).__name__} ranks by gradients, of which "
                "there are none yet. Give it a start of at least 1 step."
            )

    @property
    def ready(self) -> bool:
        return self.seen > 0 or self.settled

    @torch.no_grad()
    def observe(self, lr: float, weight: float = 1.0) -> None:
        grads = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
        if not grads or not all(norm.isfinite() for norm in foreach("norm", [*grads.values()], float("inf"))):
            return
        self.seen += 1
        for name, grad in grads.items():
            self.remember(name, self.weights[name].to(_wide(grad)), grad.to(_wide(grad)) / weight, lr)

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
        return super().state_dict() | kept | {"seen": torch.tensor(self.seen)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        for what, named in self.memory.items():
            for name, tensor in named.items():
                tensor.copy_(state[f"{what}.{name}"])
        self.seen = int(state["seen"])


def share_of_past(name: str, value: Any) -> float:
    """Raises InputError for what is no decay of an average over steps, in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{name} is the share that an average keeps of itself, in [0, 1), got {value!r}.")
    return float(value)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
