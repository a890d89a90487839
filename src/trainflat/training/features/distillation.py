"""Distillation during a training: a teacher is asked once per micro-batch, whatever passes are then taken over it."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy.heads import kind_of, row_losses
from trainflat.core.errors import InputError
from trainflat.core.settings import Settings
from trainflat.distillation import Distillation, read_distillation
from trainflat.distillation.options import Logits
from trainflat.tasks.base import ANSWERS
from trainflat.training.features.base import ADDED, Context, Feature
from trainflat.training.teachers import check_weight, head_of, refuse_kind, teacher_of

# The teacher's logits travel with their micro-batch: a second pass, also one over some of the rows, finds them there.
_TAUGHT = ADDED + "teacher."


class DistillationFeature(Feature):
    """Blends the task's loss with the distance to a teacher's logits; evaluations measure the task's loss alone.

    Logits are kept as the forward pass gives them, under the Trainer's autocast. The feature ``self_teaching``, where
    it joins, may have another model in the teacher's place.

    Args:
        settings: A teacher (model, folder or hub name), or a mapping ``{"teacher": "folder", "weight": 0.5,
            "temperature": 2}``; see :class:`trainflat.distillation.Distillation`.

    Raises:
        InputError: options or a teacher that cannot be used; ``weight: entropy`` beside a loss without rows.
    """

    def __init__(self, settings: Any) -> None:
        read = read_distillation(settings)
        self._given = read.teacher
        self._options: Distillation = read.build()
        self._teacher: nn.Module | None = None
        self._listening: Callable[[nn.Module], Context] = lambda _: nullcontext()

    @classmethod
    def write(cls, settings: Settings) -> Any:
        return settings.dump()

    def join(self) -> None:
        self._teacher = teacher_of(self.run.model, self._given, self.run.tokenizer)
        self._teacher.eval().to(self.run.args.device)
        check_weight(self._options.weight, head_of(self.run.model))
        if self.run.own_loss and self._options.weight == "entropy":
            raise InputError(
                "weight entropy is by row, and label smoothing or a loss function of one's own has only a mean. "
                "Leave these out, or give a share in [0, 1]."
            )

    @property
    def teacher(self) -> Any:
        """The model that is asked now."""
        fellow: Any = self.run.features.get("self_teaching")
        return self._teacher if fellow is None or fellow.model is None else fellow.model

    def listen(self, listening: Callable[[nn.Module], Context]) -> None:
        """Puts a context around each forward pass of the teacher, made from it: a fellow hears more than its logits."""
        self._listening = listening

    def batch(self, inputs: dict[str, Any]) -> dict[str, Any]:
        rows = {key: value for key, value in inputs.items() if key not in ANSWERS}
        # No inference mode: the backward pass through the loss needs these tensors.
        teacher = self.teacher.eval()
        with torch.no_grad(), self.run.autocast(), self._listening(teacher):
            logits = logits_of(teacher(**rows))
        return inputs | {f"{_TAUGHT}{k}": one.detach() for k, one in enumerate(logits)}

    def terms(
        self, terms: dict[str, Tensor], outputs: Any, inputs: Mapping[str, Any], weight: float
    ) -> dict[str, Tensor]:
        # One term, not two: with a weight by row, the mean of the blended rows is no sum of two weighted means.
        taught, task = self._taught(outputs, inputs), terms["task"]
        if self._options.weight == "entropy":
            losses = row_losses(outputs, inputs, self.run.model) * weight
            blended = self._blend_rows(losses, taught, outputs, inputs).mean().to(task.dtype)
        else:
            blended = self._options.blend(task, taught.mean().to(task.dtype))
        return terms | {"task": blended}

    def row_losses(self, losses: Tensor, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        return self._blend_rows(losses, self._taught(outputs, inputs), outputs, inputs)

    def _blend_rows(self, losses: Tensor, taught: Tensor, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        return self._options.blend(losses, taught, logits_of(outputs), inputs.get("attention_mask"))

    def _taught(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """The distance of each row [B] from the teacher.

        Raises:
            InputError: the teacher's logits have another shape than the student's.
        """
        teacher = tuple(value for key, value in inputs.items() if key.startswith(_TAUGHT))
        refuse_kind(self.run.model, kind_of(self.run.model, outputs, inputs.get("labels")))
        student = logits_of(outputs)
        shapes = [tuple(map(tuple, (x.shape for x in side))) for side in (teacher, student)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the teacher's logits have the shapes {shapes[0]}, the student's {shapes[1]}. "
                "Give a teacher that was fine-tuned on the student's task."
            )
        return self._options.losses(student, teacher, inputs.get("attention_mask"))


def logits_of(outputs: Any) -> Logits:
    """The logits [B, C], or those [B, T] of both ends of a span."""
    if "start_logits" in outputs:
        return outputs["start_logits"], outputs["end_logits"]
    return (outputs["logits"],)
