"""Holds the options of distillation, and blends task and teacher losses."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import Tensor

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.core.settings import Check, Number, Settings
from trainflat.distillation.losses import certainties, logit_losses, number_losses, span_certainties, span_losses

Logits = tuple[Tensor, ...]
"""Outputs of a task head: (logits [B, C],), (numbers [B, 1],), or (start [B, T], end [B, T])."""

_TEMPERATURE = Number("of the logits is a number above 0", lambda x: x > 0, advice="; usual is 2.")


class _Weight(Check):
    def read(self, name: str, value: Any) -> float | str:
        if value == "entropy":
            return "entropy"
        advice = "; or entropy, by row."
        return Number("is the teacher's share of the loss, in [0, 1]", _is_share, advice=advice).read(name, value)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


class _Teacher(Check):
    def read(self, name: str, value: Any) -> Any:
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InputError("distillation needs a teacher: the folder or hub name of a model fine-tuned on the task.")
        return value


class _Renew(Check):
    def read(self, name: str, value: Any) -> str | None:
        if value not in (None, "best"):
            raise InputError(
                f"renew says whose weights the teacher takes on: best, or left out for none, got {value!r}."
            )
        return None if value is None else "best"


class Distillation(Configurable):
    r"""Blends the distillation loss with the task's loss, at a temperature.

    The loss is :math:`w \cdot T^2 \mathrm{KL}(\text{teacher} \| \text{student}) + (1 - w) \cdot \text{task loss}`: one
    weight, as Hinton et al. average their two objectives. ``weight=1`` is the teacher alone, ``weight=0`` the task
    alone. Departs from the code of movement pruning (Sanh et al., 2020), whose two weights need not add up to one
    (``alpha_distil``, ``alpha_ce``, by default 0.5 each): they are ``weight = alpha_distil / (alpha_distil +
    alpha_ce)`` here, with the loss scaled by their sum. Adam's step does not depend on that scale; clipping, and the
    strength of a penalty beside the loss, do.

    Args:
        weight: Share of the teacher, in [0, 1]; or ``"entropy"``: per row, the student's certainty (of classes
            :func:`certainties`, of spans :func:`span_certainties`), computed in every pass and as a constant, so that
            the student cannot lower its loss by being uncertain.
        temperature: Temperature of both softmaxes, above 0. Numbers have none: their loss is the squared difference.

    Raises:
        InputError: a value is outside its range.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[4.0, -4.0]])
        >>> how = Distillation(weight="entropy")
        >>> how.blend(torch.tensor([0.7]), how.losses((student,), (teacher,)), (student,))  # certainty 0: labels alone
        tensor([0.7000])
    """

    weight: Annotated[float | Literal["entropy"], _Weight()] = 0.5
    temperature: Annotated[float, _TEMPERATURE] = 2.0

    def losses(self, student: Logits, teacher: Logits, tokens: Tensor | None = None) -> Tensor:
        """Computes the distillation loss of every row [B]; ``tokens`` [B, T] is the attention mask."""
        if len(student) == 2:
            return span_losses((student[0], student[1]), (teacher[0], teacher[1]), self.temperature, tokens)
        if student[0].shape[-1] == 1:
            return number_losses(student[0], teacher[0])
        return logit_losses(student[0], teacher[0], self.temperature)

    def blend(self, task: Tensor, distilled: Tensor, student: Logits = (), tokens: Tensor | None = None) -> Tensor:
        """Computes ``share * distilled + (1 - share) * task``.

        Args:
            task: The task's loss: a mean, or [B] where the weight is per row.
            distilled: The distillation loss, in the same shape.
            student: The student's logits, needed where the weight is per row.
            tokens: Attention mask, as for :meth:`losses`.

        Raises:
            InputError: the weight is per row, and ``student`` has no logits over classes or tokens.
        """
        share = self._share(student, tokens)
        return share * distilled + (1 - share) * task

    def _share(self, student: Logits, tokens: Tensor | None) -> float | Tensor:
        if self.weight != "entropy":
            return self.weight
        if not student or student[0].shape[-1] == 1:
            raise InputError("weight entropy needs the student's logits over classes or tokens. Give them, or a share.")
        return span_certainties((student[0], student[1]), tokens) if len(student) == 2 else certainties(student[0])


class DistillationSettings(Settings):
    """Options of distillation in a recipe; ``renew`` came later, and is there only where it is used."""

    name, member = "distillation", Distillation

    teacher: Annotated[Any, _Teacher()]
    weight: Annotated[Any, _Weight()] = 0.5
    temperature: Annotated[float, _TEMPERATURE] = 2.0
    renew: Annotated[Any, _Renew()] = None

    def build(self, *args: Any, **given: Any) -> Distillation:
        """Builds the loss, without its teacher."""
        return Distillation(self.weight, self.temperature)

    def dump(self) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key != "renew" or value is not None}


def read_distillation(section: Any) -> Settings:
    """Reads a section of distillation: ``teacher``, ``weight``, ``temperature`` and ``renew``.

    Args:
        section: A teacher, or a mapping such as ``{"teacher": "folder", "weight": 0.9}``. A teacher is a folder or a
            hub name, outside of recipes also a model.

    Raises:
        UnknownName: an option that does not exist.
        InputError: a value that cannot be used, or no teacher.

    Example:
        >>> read_distillation({"teacher": "fine-tuned", "weight": 1}).dump()
        {'teacher': 'fine-tuned', 'weight': 1.0, 'temperature': 2.0}
    """
    if isinstance(section, Settings):
        return section
    given = section if isinstance(section, Mapping) else {"teacher": section}
    for key in given:
        if key not in DistillationSettings.model_fields:
            raise UnknownName("option of distillation", str(key), DistillationSettings.model_fields)
    return DistillationSettings.of({"teacher": None} | dict(given))


def check_renewal(total_steps: int, every: int) -> None:
    """Refuses a training that renews its teacher from evaluations and has none before its last step.

    Args:
        total_steps: Optimizer steps of the training.
        every: Optimizer steps from one evaluation to the next; 0 for none.

    Raises:
        InputError: the first evaluation, if any, comes at the last step or later.
    """
    if not 0 < every < total_steps:
        first = f"the first is after {every}" if every else "there is none"
        raise InputError(
            f"renew best takes its teachers from evaluations before the last of {plural(total_steps, 'step')}, and "
            f"{first}. Evaluate more often, or leave renew out."
        )
