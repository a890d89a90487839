"""Reparametrised training: between steps the model holds θ, and computes with the weights w = f(θ)."""

from contextlib import nullcontext

import torch
from torch import Tensor

from trainflat.core.settings import Section
from trainflat.reparametrization import REPARAMETRIZATIONS, Reparametrization, check_alone
from trainflat.training.features.base import Context, Feature, State


class ReparametrizationFeature(Feature):
    """Puts weights into the model for passes, evaluations and checkpoints; optimizers move and displace θ.

    Args:
        settings: The name of a reparametrisation, or a mapping ``{"name": "powerprop", "alpha": 2}``.

    Raises:
        InputError: an unknown name or option; beside a feature that would take θ for weights.
    """

    file = "theta.safetensors"
    state_name = "reparametrization"

    def __init__(self, settings: Section) -> None:
        self._settings = REPARAMETRIZATIONS.read(settings)
        torch.rand(2)  # drawn here by older versions: dropout, and so a run's bits, are those of runs before
        self._now: Reparametrization | None = None

    def join(self) -> None:
        check_alone(**{key: key for key, feature in self.run.features.items() if feature.reads_weights})

    def begin(self, state: State | None, step: int) -> None:
        self.ended()  # of an attempt that memory was too small for
        self._now = self._settings.build(self.run.model)
        self._now.begin(state)

    def passes(self, weight: float, again: bool) -> Context:
        return self.as_saved()

    def as_finished(self) -> Context:
        return self.as_saved()

    def as_saved(self) -> Context:
        return nullcontext() if self._now is None else self._now.weights_in_place()

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self._now is None else self._now.theta()

    def load_best(self, state: State, step: int) -> None:
        if self._now is not None:
            self._now.forget()  # the model holds the best checkpoint's weights, no θ

    def ended(self) -> None:
        if self._now is not None:
            self._now.end()
            self._now = None
