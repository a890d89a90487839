"""Distils a teacher into a student: losses between their logits, and the blend with the task's loss."""

from trainflat.distillation.losses import (
    certainties,
    logit_loss,
    logit_losses,
    number_losses,
    span_certainties,
    span_losses,
)
from trainflat.distillation.options import Distillation, check_renewal, read_distillation

__all__ = [
    "Distillation",
    "certainties",
    "check_renewal",
    "logit_loss",
    "logit_losses",
    "number_losses",
    "read_distillation",
    "span_certainties",
    "span_losses",
]
