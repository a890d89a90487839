"""Says how one stage is trained otherwise than the recipe's ``training`` section says."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.settings import Check, Maybe, Number, Word
from trainflat.training.options import TrainingOptions

Schedule = Literal["linear", "constant", "cosine"]


class _Rates(Check):
    """Accepts None, a learning rate, or a list of several to choose from."""

    def read(self, name: str, value: Any) -> list[float] | None:
        if value is None:
            return None
        rate = Number("is a learning rate above 0, or a list of some to choose from", lambda x: x > 0)
        given = value if isinstance(value, list | tuple) else [value]
        rates = [rate.read(name, float(one) if isinstance(one, str) and _is_number(one) else one) for one in given]
        if not rates or len(set(rates)) < len(rates):
            raise InputError(f"{name} is a learning rate, or a list of different ones, got {value!r}.")
        return rates


def _is_number(text: str) -> bool:
    try:
        float(text)  # YAML reads 2e-5 as text
    except ValueError:
        return False
    return True


class Phase(Configurable):
    """Declares how a stage's training differs from the recipe's; what is None is as the recipe has it.

    Args:
        epochs: Passes over the training rows.
        lr: Learning rate; of several, the one that scores best on held-out training rows is taken.
        schedule: Course of the learning rate.
        warmup: Share of the steps in which the rate rises.
        held_out: Share of the training rows that several rates are compared on; the others are trained on then. With
            the rate that was chosen the stage is trained on all rows.

    Example:
        >>> Phase(epochs=2, lr=[1e-5, 3e-5]).steps(TrainingOptions(batch_size=10), rows=100)
        56
    """

    epochs: Annotated[float | None, Maybe(Number("is a number above 0, 1000 at most", lambda x: 0 < x <= 1000))] = None
    lr: Annotated[list[float] | None, _Rates()] = None
    schedule: Annotated[Schedule | None, Maybe(Word(get_args(Schedule)))] = None
    warmup: Annotated[float | None, Maybe(Number("is a share of the steps, in [0, 1)", lambda x: 0 <= x < 1))] = None
    held_out: Annotated[float, Number("is a share of the rows, in (0, 1)", lambda x: 0 < x < 1)] = 0.1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    @property
    def several(self) -> bool:
        """Returns whether there are learning rates to choose from."""
        return self.lr is not None and len(self.lr) > 1

    def options(self) -> dict[str, Any]:
        """Returns what differs from a phase without options, as JSON."""
        return {key: getattr(self, key) for key in self._checks if getattr(self, key) != getattr(Phase, key)}

    def applied(self, training: TrainingOptions, lr: float | None = None) -> TrainingOptions:
        """Returns the training's options for this phase.

        Args:
            training: As the recipe has it.
            lr: Learning rate; None is the phase's only one.
        """
        rate = self.lr[0] if lr is None and self.lr is not None else lr
        own = {key: getattr(self, key) for key in ("epochs", "schedule", "warmup") if getattr(self, key) is not None}
        optimizer = training.optimizer if rate is None else training.optimizer.model_copy(update={"lr": rate})
        return training.model_copy(update=own | {"optimizer": optimizer})

    def held_rows(self, rows: int) -> int:
        """Returns how many of the training rows are held out while rates are compared."""
        return min(max(1, round(self.held_out * rows)), rows - 1)

    def row_counts(self, rows: int) -> list[int]:
        """Counts the rows of every training, of so many in all: of the rates that are compared, and of the stage."""
        trials = [rows - self.held_rows(rows)] * len(self.lr or ()) if self.several else []
        return [*trials, rows]

    def steps(self, training: TrainingOptions, rows: int) -> int:
        """Counts a stage's optimizer steps, trials of learning rates included."""
        own = self.applied(training)
        return sum(own.steps(count) for count in self.row_counts(rows))


class PhaseOption(Check):
    """Accepts None, a mapping of a phase's options, or a phase."""

    def read(self, name: str, value: Any) -> Phase | None:
        if value is None or isinstance(value, Phase):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is a mapping of options, such as {{epochs: 3, lr: 2e-5}}, got {value!r}.")
        for key in value:
            if key not in Phase._checks:
                raise UnknownName(f"option of {name}", str(key), Phase._checks)
        try:
            return Phase(**value)
        except InputError as error:
            raise InputError(f"{name}.{error}") from error

    def dump(self, value: Any) -> Any:
        return None if value is None else value.options()
