"""How flat a minimum is: measures on the loss around the weights of a trained model."""

from trainflat.sharpness.base import Objective, model_loss
from trainflat.sharpness.landscape import loss_plane
from trainflat.sharpness.lines import barrier, loss_line
from trainflat.sharpness.passes import Effort
from trainflat.sharpness.paths import filter_normalised

__all__ = ["Effort", "Objective", "barrier", "filter_normalised", "loss_line", "loss_plane", "model_loss"]
