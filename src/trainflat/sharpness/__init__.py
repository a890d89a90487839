"""How flat a minimum is: measures on the loss around the weights of a trained model."""

from trainflat.sharpness.base import Objective, model_loss
from trainflat.sharpness.passes import Effort

__all__ = ["Effort", "Objective", "model_loss"]
