"""The reparametrisation of one training: when weights stand in for θ, how it is resumed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from trainflat.core.files import save_tensors
from trainflat.core.settings import Section
from trainflat.reparametrization import (
    REPARAMETRIZATIONS,
    Reparametrization,
    check_alone,
)
from trainflat.training import checkpoints

THETA = "theta.safetensors"


class Reparametrized:
    """A reparametrisation that holds while a model is trained, if one is asked for; else all of it does nothing.

    Between passes the model holds θ; passes, evaluations and checkpoints see the weights.

    Args:
        recipe: A name, a mapping ``{"name": "powerprop", "alpha": 2}``, or None.
        **others: What else was asked for that would take θ for weights; None where it was not.

    Raises:
        InputError: it names none, or options that cannot be used, or others that it does not go with.
    """

    def __init__(self, recipe: Section | None, **others: object) -> None:
        self.name: str | None = None
        self._now: Reparametrization | None = None
        if recipe is not None:
            self._settings = REPARAMETRIZATIONS.read(recipe)
            self.name = self._settings.name
            torch.rand(2)  # drawn here by older versions: dropout, and so a run's bits, are those of runs before
            check_alone(**others)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around a whole training: behind it the model holds weights, also after an exception."""
        try:
            yield
        finally:
            if self._now is not None:
                self._now.end()
                self._now = None

    def begin(self, model: nn.Module, checkpoint: Path | None) -> None:
        """The model, which holds weights, is trained from here on, or from where a checkpoint was written.

        Raises:
            InputError: the checkpoint was written without a reparametrisation, or with one and none was asked for.
            DamagedFile: it is not what was written.
        """
        wanted = self.name is not None
        theta = None if checkpoint is None else checkpoints.read_beside(checkpoint, THETA, wanted, "reparametrization")
        if self._now is not None:
            self._now.end()  # of an attempt that memory was too small for
        if self.name is not None:
            self._now = self._settings.build(model)
            self._now.begin(theta)

    def weights_in_place(self) -> AbstractContextManager[None]:
        """Inside the block the model computes with weights; gradients are those of θ. May be nested."""
        return nullcontext() if self._now is None else self._now.weights_in_place()

    def loaded(self) -> None:
        """Somebody put weights into the model, for good."""
        if self._now is not None:
            self._now.forget()

    def save(self, checkpoint: Path) -> None:
        """Adds θ to a checkpoint, which holds the weights."""
        if self._now is not None:
            save_tensors(checkpoint / THETA, self._now.theta())
