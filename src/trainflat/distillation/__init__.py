"""Distils a teacher into a student: losses between logits and between layers, and the blend with the task's loss."""

from trainflat.distillation.layerwise import Layerwise, LayerwiseLoss, Shape, layerwise_loss, state_losses
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
    "Layerwise",
    "LayerwiseLoss",
    "Shape",
    "certainties",
    "check_renewal",
    "layerwise_loss",
    "logit_loss",
    "logit_losses",
    "number_losses",
    "read_distillation",
    "span_certainties",
    "span_losses",
    "state_losses",
]
