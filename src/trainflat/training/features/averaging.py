"""The average of the weights that a training passes through: it is evaluated, and kept, in place of the weights."""

from typing import Any

from torch import Tensor

from trainflat.averaging import AVERAGING, Averaging, models_taken
from trainflat.core.formatting import plural
from trainflat.core.settings import Section, Settings
from trainflat.training.features.base import Context, Feature, State, nested


class AveragingFeature(Feature):
    """Averages weights; from the first averaged model on, evaluations and the finished model are the average.

    Args:
        settings: The name of an averaging, or a mapping ``{"name": "swa", "every": 0.5}``.

    Raises:
        InputError: an unknown name or option; when training begins, one too short to average anything.
    """

    file = "averaging.safetensors"
    state_name = "averaging"
    reads_weights = True

    def __init__(self, settings: Section) -> None:
        self._settings = AVERAGING.read(settings)
        self._average: Averaging | None = None
        self._running = False

    @classmethod
    def outlook(cls, settings: Settings, steps: int, steps_per_epoch: int) -> str:
        return f"{plural(models_taken(settings, steps, steps_per_epoch), 'model')} of each training"

    @property
    def models(self) -> int:
        """How many models are in the average."""
        return 0 if self._average is None else self._average.models

    @property
    def ready(self) -> bool:
        """False as long as evaluations see the weights themselves, which are not what training will end with."""
        return self.models > 0

    def begin(self, state: State | None, step: int) -> None:
        models_taken(self._settings, self.run.total_steps, self.run.steps_per_epoch)
        self._average = self._settings.build(self.run.model)
        self._running = True
        super().begin(state, step)

    def stepped(self, step: int) -> None:
        self._known.update(step, self.run.total_steps, self.run.steps_per_epoch)

    def logs(self, evaluated: bool) -> dict[str, float]:
        return {"averaged_models": self.models} if evaluated else {}

    def as_finished(self) -> Context:
        return self._known.swapped_in() if self._running else nested(())

    def state_dict(self) -> dict[str, Tensor]:
        return self._known.state_dict()

    def load_state_dict(self, state: State, step: int) -> None:
        self._known.load_state_dict(state)

    def finish(self) -> None:
        self._known.copy_to_model()
        self._running = False

    def record(self) -> dict[str, Any]:
        return {"averaging": {"name": self._settings.name, "models": self.models}}

    @property
    def _known(self) -> Averaging:
        assert self._average is not None, "begin() makes it"
        return self._average
