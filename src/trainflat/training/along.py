"""What is trained along with the weights: an average of them, the ranges of fake quantization."""

from pathlib import Path

from torch import nn

from trainflat.core.settings import Section
from trainflat.training.averaged import Averaged
from trainflat.training.quantized import Quantized


class Along:
    """Begins, is updated, saved and resumed with a training.

    Args:
        averaging: As :class:`Averaged` takes it.
        quantization: As :class:`Quantized` takes it.
    """

    def __init__(self, averaging: Section | None, quantization: Section | None) -> None:
        self.averaged, self.quantized = Averaged(averaging), Quantized(quantization)

    def begin(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> None:
        """A training of the model over so many optimizer steps."""
        self.averaged.begin(model, total_steps, steps_per_epoch)
        self.quantized.begin(model)

    def update(self, step: int) -> None:
        """After the optimizer step with this number, counted from 1."""
        self.averaged.update(step)
        self.quantized.update()

    def save(self, checkpoint: Path) -> None:
        """Adds to a checkpoint."""
        self.averaged.save(checkpoint)
        self.quantized.save(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Goes on from a checkpoint; raises what the parts raise."""
        self.averaged.load(checkpoint)
        self.quantized.load(checkpoint)
