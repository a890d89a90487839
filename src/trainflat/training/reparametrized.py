"""The reparametrisation of one training: when weights stand in for θ, how it is resumed."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from trainflat.errors import InputError
from trainflat.files import load_tensors, save_tensors
from trainflat.reparametrization import (
    REPARAMETRIZATIONS,
    Reparametrization,
    check_alone,
    complete_options,
    make_reparametrization,
)

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

    def __init__(self, recipe: str | Mapping[str, Any] | None, **others: object) -> None:
        self._options = {"name": recipe} if isinstance(recipe, str) else dict(recipe or {})
        self.name: str | None = self._options.pop("name", None)
        self._now: Reparametrization | None = None
        if self.name is None:
            if recipe is not None:
                raise InputError(f"name a reparametrization: {', '.join(REPARAMETRIZATIONS)}; such as 'powerprop'.")
            return
        complete_options(self.name, self._options)
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
        with_it = checkpoint is not None and (checkpoint / THETA).is_file()
        if checkpoint is not None and with_it != (self.name is not None):
            one, other = ("with", "without") if with_it else ("without", "with")
            raise InputError(
                f"{checkpoint} was written {one} reparametrization and cannot go on {other}. "
                f"Resume {one} it, or begin in another folder."
            )
        if self.name is not None:
            self._now = make_reparametrization(self.name, model, **self._options)
            self._now.begin(load_tensors(checkpoint / THETA)[0] if with_it and checkpoint is not None else None)

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
