"""What distillation is told, and what it makes of a batch's answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainflat.distillation.losses import logit_losses, number_losses, span_losses
from trainflat.errors import InputError, UnknownName

Logits = tuple[Tensor, ...]
"""What a head says: (logits [B, C],), (numbers [B, 1],), or (start [B, T], end [B, T])."""

_OPTIONS = ("teacher", "weight", "temperature")


@dataclass(frozen=True)
class Distillation:
    r"""How much is learned from a teacher, and how softly.

    The loss is :math:`w \cdot T^2 \mathrm{KL}(\text{teacher} \| \text{student}) + (1 - w) \cdot \text{task loss}`: one
    weight, as Hinton et al. average their two objectives. ``weight=1`` is the teacher alone, ``weight=0`` the task
    alone. Departs from the code of movement pruning (Sanh et al., 2020), whose two weights need not add up to one
    (``alpha_distil``, ``alpha_ce``): a pair of them is ``weight = alpha_distil / (alpha_distil + alpha_ce)`` with the
    loss scaled by their sum, which Adam's step does not depend on.

    Args:
        weight: Share of the teacher, in [0, 1].
        temperature: Of both softmaxes, above 0. Numbers have none: theirs is the squared difference to the teacher's.

    Raises:
        InputError: a value outside these.
    """

    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not _is_number(self.weight) or not 0 <= self.weight <= 1:
            raise InputError(f"weight is the teacher's share of the loss, in [0, 1], got {self.weight!r}.")
        if not _is_number(self.temperature) or not self.temperature > 0:
            raise InputError(f"temperature of the logits is a number above 0, got {self.temperature!r}; usual is 2.")

    def losses(self, student: Logits, teacher: Logits, tokens: Tensor | None = None) -> Tensor:
        """How far the student is from the teacher, for every row [B]; ``tokens`` [B, T] as for :func:`span_losses`."""
        if len(student) == 2:
            return span_losses((student[0], student[1]), (teacher[0], teacher[1]), self.temperature, tokens)
        if student[0].shape[-1] == 1:
            return number_losses(student[0], teacher[0])
        return logit_losses(student[0], teacher[0], self.temperature)

    def blend(self, task: Tensor, taught: Tensor) -> Tensor:
        """The loss of the task and that of the teacher as one; both of one shape."""
        return self.weight * taught + (1 - self.weight) * task


def complete_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a section such as ``{"teacher": "folder", "weight": 0.9}``, those not given with their defaults.

    Raises:
        UnknownName: an option that does not exist.
        InputError: a value that cannot be used, or no teacher.

    Example:
        >>> complete_options({"teacher": "fine-tuned", "weight": 1})
        {'teacher': 'fine-tuned', 'weight': 1.0, 'temperature': 2.0}
    """
    for key in section:
        if key not in _OPTIONS:
            raise UnknownName("option of distillation", str(key), _OPTIONS)
    teacher = section.get("teacher")
    if teacher is None or (isinstance(teacher, str) and not teacher.strip()):
        raise InputError("distillation needs a teacher: the folder or hub name of a model fine-tuned on the task.")
    made = Distillation(**{key: value for key, value in section.items() if key != "teacher"})
    return {"teacher": teacher, "weight": float(made.weight), "temperature": float(made.temperature)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
