"""Distillation: a student learns from what a teacher says of the same rows."""

from trainflat.distillation.losses import logit_loss, logit_losses, number_losses, span_losses
from trainflat.distillation.options import Distillation, complete_options

__all__ = [
    "Distillation",
    "complete_options",
    "logit_loss",
    "logit_losses",
    "number_losses",
    "span_losses",
]
