"""The average of the weights of one training: when it is updated, where it stands in for them, how it is resumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from trainflat.averaging import AVERAGING, Averaging, models_taken
from trainflat.core.files import save_tensors
from trainflat.core.settings import Section
from trainflat.training import checkpoints

AVERAGE = "averaging.safetensors"


class Averaged:
    """An average that is trained along, if a recipe asks for one; else all of it does nothing.

    While the training runs the average stands in for the weights at evaluations; when it has ended the model holds it.

    Args:
        recipe: A name, a mapping ``{"name": "swa", "every": 0.5}``, or None.

    Raises:
        InputError: it names none, or options that cannot be used.
    """

    def __init__(self, recipe: Section | None) -> None:
        self.name: str | None = None
        if recipe is not None:
            self._settings = AVERAGING.read(recipe)
            self.name = self._settings.name
        self._length, self._running = (0, 0), False
        self._average: Averaging | None = None

    @property
    def models(self) -> int:
        """How many models are in the average."""
        return self._average.models if self._average is not None else 0

    @property
    def waits(self) -> bool:
        """Whether evaluations still see the weights themselves, because nothing was averaged yet."""
        return self._average is not None and not self.models

    def begin(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> None:
        """A training of the model over so many optimizer steps.

        Raises:
            InputError: it is too short for the average to take in anything.
        """
        if self.name is not None:
            models_taken(self._settings, total_steps, steps_per_epoch)
            self._average = self._settings.build(model)
            self._length, self._running = (total_steps, steps_per_epoch), True

    def update(self, step: int) -> None:
        """After the optimizer step with this number, counted from 1."""
        if self._average is not None:
            self._average.update(step, *self._length)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, during a training, the model's weights are the average."""
        if self._average is None or not self._running:
            yield
            return
        with self._average.swapped_in():
            yield

    def end(self) -> None:
        """The model's weights are the average from now on."""
        if self._average is not None:
            self._average.copy_to_model()
        self._running = False

    def save(self, checkpoint: Path) -> None:
        """Adds the average to a checkpoint."""
        if self._average is not None:
            save_tensors(checkpoint / AVERAGE, self._average.state_dict())

    def load(self, checkpoint: Path) -> None:
        """Goes on from the average in a checkpoint.

        Raises:
            InputError: there is none, or it is of another model, or there is one and no averaging was asked for.
            DamagedFile: it is not what was written.
        """
        state = checkpoints.read_beside(checkpoint, AVERAGE, self._average is not None, "averaging")
        if self._average is not None and state is not None:
            self._average.load_state_dict(state)
