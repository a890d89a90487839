"""Distils a teacher into a student: losses between logits and between layers, and the blend with the task's loss."""

from trainflat.distillation.layerwise import (
    Layerwise,
    LayerwiseLoss,
    Shape,
    layerwise_loss,
    read_layerwise,
    state_losses,
)
from trainflat.distillation.losses import (
    certainties,
    logit_loss,
    logit_losses,
    number_losses,
    span_certainties,
    span_losses,
)
from trainflat.distillation.options import Distillation, check_renewal, read_distillation
from trainflat.distillation.state_maps import cut_maps

__all__ = [
    "Distillation",
    "Layerwise",
    "LayerwiseLoss",
    "Shape",
    "certainties",
    "check_renewal",
    "cut_maps",
    "layerwise_loss",
    "logit_loss",
    "logit_losses",
    "number_losses",
    "read_distillation",
    "read_layerwise",
    "span_certainties",
    "span_losses",
    "state_losses",
]
