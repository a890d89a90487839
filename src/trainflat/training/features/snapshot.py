"""A snapshot of the weights after a given step, for protocols that rewind to it."""

from pathlib import Path

from trainflat.core.files import remove, save_tensors, seal
from trainflat.training.features.base import Feature

SNAPSHOT = "weights.safetensors"


class Snapshot(Feature):
    """Writes the model's weights into a sealed folder after one optimizer step.

    Args:
        settings: (step, folder).
    """

    in_recipes = False

    def __init__(self, settings: tuple[int, Path]) -> None:
        self._step, self._folder = settings

    def stepped(self, step: int) -> None:
        if step == self._step and self.run.args.process_index == 0:
            remove(self._folder)
            with self.run.features.as_saved():
                save_tensors(self._folder / SNAPSHOT, self.run.model.state_dict())
            seal(self._folder)
