"""Defines the base class of measures of sharpness, and checks of their options."""

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Protocol, get_args

from trainflat.core.errors import InputError, UnknownName
from trainflat.objective.base import Objective, ProductMethod
from trainflat.objective.passes import Effort, Kind


class Result(Protocol):
    """Holds the numbers of a measure and everything they depend on."""

    @property
    def effort(self) -> Effort:
        """Rows, weights and passes that were used."""

    def figures(self) -> dict[str, float]:
        """Returns the numbers, each by a name with its main setting, such as ``keskar_0.001``."""


class Measure(ABC):
    """Measures how flat a minimum is; the constructor takes and checks the options.

    A member leaves the model as it was, gives the same numbers for the same seed, and moves only weights that the
    objective's masks keep.
    """

    @abstractmethod
    def take(self, objective: Objective, seed: int = 0) -> Result:
        """Takes the measure; ``seed`` is for random draws."""

    @abstractmethod
    def names(self) -> list[str]:
        """Lists the names of its numbers, known before anything is measured."""

    @abstractmethod
    def passes(self) -> dict[Kind, float]:
        """Estimates the passes over all rows that it takes, by kind."""

    def seconds(self, objective: Objective, each: Mapping[Kind, float]) -> tuple[float, float]:
        """Estimates its duration, expected and at most, where one pass over all rows takes ``each`` seconds."""
        del objective
        about = sum(count * each[kind] for kind, count in self.passes().items())
        return about, about

    def fits(self, weights: int) -> None:
        """Refuses a model with too few weights to measure.

        Raises:
            InputError: there are too few of them.
        """
        if weights < 1:
            raise InputError("no weight may move, so that nothing can be measured. Leave some outside of the masks.")

    def check(self, objective: Objective, seed: int) -> None:
        """Refuses what :meth:`take` cannot measure, before it begins."""
        check_seed(seed)
        self.fits(objective.size)

    def measure(self, objective: Objective, seed: int = 0) -> dict[str, float]:
        """Takes the measure and returns its numbers alone."""
        return self.take(objective, seed).figures()


def is_number(value: object) -> bool:
    """Returns whether a value is a real number, also NumPy's, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Returns whether a value is a whole number, also NumPy's, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def above_zero(name: str, value: float, meaning: str) -> None:
    """Validates a finite number above 0."""
    if not (is_number(value) and 0 < value < math.inf):
        raise InputError(f"{name} is {meaning}, a number above 0, got {value!r}.")


def at_least(least: int, name: str, value: int, meaning: str) -> None:
    """Validates a whole number of at least ``least``."""
    if not (is_whole(value) and value >= least):
        raise InputError(f"{name} is {meaning}, a whole number of at least {least}, got {value!r}.")


def yes_or_no(name: str, value: bool) -> None:
    """Validates a boolean."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is True or False, got {value!r}.")


def check_seed(seed: int) -> None:
    """Validates a seed."""
    if not (isinstance(seed, int) and is_whole(seed) and 0 <= seed < 2**63):  # torch takes none of NumPy's
        raise InputError(f"seed is what random draws begin from, a whole number from 0 to 2^63 - 1, got {seed!r}.")


def distinct(measures: Iterable[Measure]) -> None:
    """Refuses measures whose numbers would share a name, since only the last would be kept."""
    taken: set[str] = set()
    for measure in measures:
        for name in measure.names():
            if name in taken:
                raise InputError(f"two of the measures give a figure called {name}. Leave one of them out.")
            taken.add(name)


def known_product(name: str) -> None:
    """Validates the name of a way to multiply with the Hessian."""
    if name not in get_args(ProductMethod):
        raise UnknownName("way to multiply with the Hessian", name, get_args(ProductMethod))


def product_passes(method: ProductMethod, count: float) -> dict[Kind, float]:
    """Counts the passes that so many products with the Hessian take."""
    return {"products": count} if method == "exact" else {"gradients": 2 * count}


def shrinking_steps(iterations: int) -> list[float]:
    """Returns the step sizes of an ascent inside a body of radius 1: from its diameter down, linearly.

    The first reaches the rim from anywhere, so that a linear loss needs no second one; the sum grows with the budget,
    so that an ascent along the rim is not cut short, as it is by the 2.5 / iterations common for adversarial examples.
    """
    return [2 * left / iterations for left in range(iterations, 0, -1)]


def finite(value: float, where: str, what: str = "loss") -> float:
    """Validates a finite number."""
    if not math.isfinite(value):
        raise InputError(f"the {what} is {value} {where}.")
    return value


AT_THE_WEIGHTS = "at the weights themselves; no sharpness can be told of a model that has diverged"
