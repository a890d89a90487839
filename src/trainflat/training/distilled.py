"""A teacher beside a training: asked once per micro-batch, whatever passes the optimizer then takes over it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainflat.anatomy.heads import kind_of, row_losses
from trainflat.core.errors import InputError
from trainflat.distillation import Distillation, read_distillation
from trainflat.distillation.options import Logits
from trainflat.tasks.base import ANSWERS
from trainflat.training.renewed import Renewed
from trainflat.training.teachers import check_weight, head_of, refuse_kind, teacher_of

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer

# What the teacher says travels with its micro-batch: a second pass, also one over some of the rows, finds it there.
_TAUGHT = "teacher_"


class Distilled:
    """The teacher of a training, if there is one; else all of it does nothing.

    Its logits enter every training batch; the loss then takes them out again. Evaluations have none, so that their loss
    is the task's. Logits are kept as the forward pass gives them, under the Trainer's autocast.

    Args:
        trainer: Of the student.
        section: A mapping ``{"teacher": folder or model, "weight": 0.5, "temperature": 2}``, a teacher alone, or None;
            with ``"renew": "best"`` the teacher of which is :class:`Renewed`.

    Attributes:
        renewed: Who takes the teacher's place.

    Raises:
        InputError: options or a teacher that cannot be used.
    """

    def __init__(self, trainer: "FlatTrainer", section: Any) -> None:
        self._trainer = trainer
        self._teacher: nn.Module | None = None
        settings = None if section is None else read_distillation(section)
        self.renewed = Renewed(trainer, settings is not None and settings.renew == "best")
        if settings is not None:
            self._options: Distillation = settings.build()
            self._teacher = teacher_of(trainer.model, settings.teacher, trainer.processing_class)
            self._teacher.eval().to(trainer.args.device)
            self._check_rows()

    def _check_rows(self) -> None:
        """A weight by row needs rows that have one."""
        check_weight(self._options.weight, head_of(self._trainer.model))
        own = self._trainer.args.label_smoothing_factor or self._trainer.compute_loss_func is not None
        if own and self._options.weight == "entropy":
            raise InputError(
                "weight entropy is by row, and label smoothing or a loss function of one's own tells no losses of "
                "rows. Leave these out, or give a share in [0, 1]."
            )

    def ask(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The micro-batch with the teacher's logits.

        Raises:
            InputError: they have another shape than the student's will have.
        """
        if self._teacher is None:
            return inputs
        rows = {key: value for key, value in inputs.items() if key not in ANSWERS}
        teacher = (self._teacher if self.renewed.model is None else self.renewed.model).eval()
        # No inference mode: the backward pass through the loss needs these tensors.
        with torch.no_grad(), self._trainer.accelerator.autocast():
            said = logits_of(teacher(**rows))
        return inputs | {f"{_TAUGHT}{k}": logits.detach() for k, logits in enumerate(said)}

    def without(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The micro-batch as the student reads it."""
        return {key: value for key, value in inputs.items() if not key.startswith(_TAUGHT)}

    def blend(self, loss: Tensor, outputs: Any, inputs: Mapping[str, Any], weight: float = 1.0) -> Tensor:
        """The mean loss over the rows: the task's and the teacher's, where the teacher was asked.

        Args:
            loss: The task's, weighed.
            outputs: Of the student.
            inputs: With the teacher's logits.
            weight: Of the task's losses of rows; see :class:`trainflat.training.shares.Size`.
        """
        taught = self._row_losses(outputs, inputs)
        if taught is None:
            return loss
        if self._options.weight == "entropy":
            return self._blend_rows(outputs, inputs, taught, weight).mean().to(loss.dtype)
        return self._options.blend(loss, taught.mean().to(loss.dtype))

    def example_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Losses [B] whose mean is :meth:`blend`'s, without a graph."""
        with torch.no_grad():
            taught = self._row_losses(outputs, inputs)
            return (
                row_losses(outputs, inputs, self._trainer.model)
                if taught is None
                else self._blend_rows(outputs, inputs, taught)
            )

    def _blend_rows(self, outputs: Any, inputs: Mapping[str, Any], taught: Tensor, weight: float = 1.0) -> Tensor:
        task = row_losses(outputs, inputs, self._trainer.model) * weight
        return self._options.blend(task, taught, logits_of(outputs), inputs.get("attention_mask"))

    def _row_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor | None:
        teacher = tuple(value for key, value in inputs.items() if key.startswith(_TAUGHT))
        if not teacher:
            return None
        refuse_kind(self._trainer.model, kind_of(self._trainer.model, outputs, inputs.get("labels")))
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
