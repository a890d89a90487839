"""Fake quantization during one training: when it is put on, what it learns from which passes, how it is resumed."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import nn

from trainflat.core.files import save_tensors
from trainflat.core.settings import Section
from trainflat.quantization import Q8BERT, QUANTIZERS
from trainflat.training import checkpoints

RANGES = "quantization.safetensors"


class Quantized:
    """Quantization-aware training, if a recipe asks for it; else all of it does nothing.

    Args:
        recipe: A name, a mapping ``{"name": "q8bert", "weights": "channel"}``, or None.

    Raises:
        InputError: it names none, or options that cannot be used.
    """

    def __init__(self, recipe: Section | None) -> None:
        self.name: str | None = None
        if recipe is not None:
            self._settings = QUANTIZERS.read(recipe)
            self.name = self._settings.name
        self.quantizer: Q8BERT | None = None

    def begin(self, model: nn.Module) -> None:
        """A training of the model, without what an earlier one found.

        Raises:
            InputError: the model has nothing to quantize.
        """
        self.end()
        if self.name is not None:
            self.quantizer = self._settings.build(model).attach()

    def update(self) -> None:
        """After an optimizer step."""
        if self.quantizer is not None:
            self.quantizer.update()

    def unseen(self) -> AbstractContextManager[None]:
        """What passes inside the block does not count in the ranges."""
        return nullcontext() if self.quantizer is None else self.quantizer.unseen()

    def end(self) -> None:
        """The model computes with its float weights again."""
        if self.quantizer is not None:
            self.quantizer.detach()

    def save(self, checkpoint: Path) -> None:
        """Adds the ranges to a checkpoint."""
        if self.quantizer is not None:
            save_tensors(checkpoint / RANGES, self.quantizer.state_dict())

    def load(self, checkpoint: Path) -> None:
        """Goes on from the ranges in a checkpoint.

        Raises:
            InputError: there are none, or they are of another model, or there are some and no quantization was asked
                for.
            DamagedFile: they are not what was written.
        """
        state = checkpoints.read_beside(checkpoint, RANGES, self.quantizer is not None, "quantization")
        if self.quantizer is not None and state is not None:
            self.quantizer.load_state_dict(state)
