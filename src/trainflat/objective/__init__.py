"""Computes the loss over fixed rows as a function of the weights, its gradient and Hessian products."""

from trainflat.objective.base import Batch, Loss, Objective, ProductMethod, model_loss
from trainflat.objective.passes import Effort
from trainflat.objective.variants import at_temperature, under

__all__ = ["Batch", "Effort", "Loss", "Objective", "ProductMethod", "at_temperature", "model_loss", "under"]
