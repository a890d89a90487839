"""Computes distillation losses between a student's and a teacher's outputs on the same rows."""

from trainflat.distillation.losses import (
    certainties,
    logit_loss,
    logit_losses,
    number_losses,
    span_certainties,
    span_losses,
)
from trainflat.distillation.options import Distillation, check_renewal, complete_options

__all__ = [
    "Distillation",
    "certainties",
    "check_renewal",
    "complete_options",
    "logit_loss",
    "logit_losses",
    "number_losses",
    "span_certainties",
    "span_losses",
]
