"""Quantization-aware training: the model computes as its int8 copy would while it is trained."""

from contextlib import nullcontext

from torch import Tensor

from trainflat.core.settings import Section
from trainflat.quantization import Q8BERT, QUANTIZERS
from trainflat.training.features.base import Context, Feature, State

RANGES = "quantization.safetensors"


class QuantizationFeature(Feature):
    """Attaches fake quantization until ``release()``, and follows the ranges of the layers' inputs.

    Args:
        settings: The name of a method, or a mapping ``{"name": "q8bert", "weights": "channel"}``.

    Raises:
        InputError: an unknown name or option; when training begins, a model with nothing to quantize.
    """

    file = RANGES
    state_name = "quantization"
    reads_weights = True

    def __init__(self, settings: Section) -> None:
        self._settings = QUANTIZERS.read(settings)
        self.quantizer: Q8BERT | None = None

    @property
    def product(self) -> Q8BERT | None:
        """The quantizer, with the ranges that training found."""
        return self.quantizer

    def begin(self, state: State | None, step: int) -> None:
        self.release()
        self.quantizer = self._settings.build(self.run.model).attach()
        super().begin(state, step)

    def passes(self, weight: float, again: bool) -> Context:
        # The finished model never stands displaced, so what it computes there is not in the ranges.
        return self._known.unseen() if again else nullcontext()

    def stepped(self, step: int) -> None:
        self._known.update()

    def state_dict(self) -> dict[str, Tensor]:
        return self._known.state_dict()

    def load_state_dict(self, state: State, step: int) -> None:
        self._known.load_state_dict(state)

    def release(self) -> None:
        if self.quantizer is not None:
            self.quantizer.detach()

    @property
    def _known(self) -> Q8BERT:
        assert self.quantizer is not None, "begin() makes it"
        return self.quantizer
