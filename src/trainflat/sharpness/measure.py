"""Defines the base class of measures of sharpness, and checks of their options."""

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Protocol, get_args

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.settings import Number, Word
from trainflat.objective.base import Objective, ProductMethod
from trainflat.objective.passes import Effort, Kind
from trainflat.objective.vectors import Vector


class Result(Protocol):
    """Holds the numbers of a measure, with the options, seed and effort that they depend on."""

    @property
    def effort(self) -> Effort:
        """Rows, weights and passes that were used."""

    def figures(self) -> dict[str, float]:
        """Returns the numbers by name; a name includes the main option, such as ``keskar_0.001``."""


class Measure(Configurable, ABC):
    """Measures how flat a minimum is; its annotated attributes are the options.

    A member leaves the model as it was, gives the same numbers for the same seed, and moves only weights that the
    objective's masks keep.
    """

    @abstractmethod
    def compute(self, objective: Objective, seed: int = 0) -> Result:
        """Computes the measure; ``seed`` seeds its random draws."""

    @abstractmethod
    def names(self) -> list[str]:
        """Lists the names of its figures, known before anything is computed."""

    @abstractmethod
    def passes(self) -> dict[Kind, float]:
        """Estimates its passes over all rows, by kind."""

    def seconds(self, objective: Objective, each: Mapping[Kind, float]) -> tuple[float, float]:
        """Estimates its duration in seconds, expected and at most.

        Args:
            each: Seconds of one pass over all rows, by kind.
        """
        del objective
        about = sum(count * each[kind] for kind, count in self.passes().items())
        return about, about

    def fits(self, weights: int) -> None:
        """Checks that there are enough weights for the options.

        Args:
            weights: Number of entries that may move; in a pruned model the survivors.

        Raises:
            InputError: there are too few.
        """
        if weights < 1:
            raise InputError("no weight may move, so that nothing can be measured. Leave some outside of the masks.")

    def check(self, objective: Objective, seed: int) -> None:
        """Checks, before the first pass, that the measure can be computed; raises :class:`InputError`."""
        check_seed(seed)
        self.fits(objective.size)

    def measure(self, objective: Objective, seed: int = 0) -> dict[str, float]:
        """Computes the measure and returns its figures alone."""
        return self.compute(objective, seed).figures()


def is_number(value: object) -> bool:
    """Returns whether a value is a real number, NumPy's included; booleans are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Returns whether a value is a whole number, NumPy's included; booleans are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def above_zero(meaning: str) -> Number:
    """Makes the check of an option that is a finite number above 0; ``meaning`` describes it in the message."""
    return Number(f"is {meaning}, a number above 0", lambda x: x > 0)


def at_least(least: int, meaning: str) -> Number:
    """Makes the check of an option that is a whole number of at least ``least``."""
    return Number(f"is {meaning}, a whole number of at least {least}", lambda x: x >= least, whole=True)


def check_seed(seed: int) -> None:
    """Validates a seed."""
    if not (isinstance(seed, int) and is_whole(seed) and 0 <= seed < 2**63):  # torch takes no NumPy integer
        raise InputError(f"seed is the seed of the random draws, a whole number from 0 to 2^63 - 1, got {seed!r}.")


def distinct(measures: Iterable[Measure]) -> None:
    """Checks that no two measures have a figure of one name: the record would keep only the last.

    Raises:
        InputError: a name occurs twice.
    """
    taken: set[str] = set()
    for measure in measures:
        for name in measure.names():
            if name in taken:
                raise InputError(f"two of the measures give a figure called {name}. Leave one of them out.")
            taken.add(name)


ProductOption = Annotated[ProductMethod, Word(get_args(ProductMethod), "way to multiply with the Hessian")]


def product_passes(method: ProductMethod, count: float) -> dict[Kind, float]:
    """Counts the passes of ``count`` products with the Hessian; a difference takes two gradients each."""
    return {"products": count} if method == "exact" else {"gradients": 2 * count}


def finite(value: float, where: str, what: str = "loss") -> float:
    """Returns ``value``; raises :class:`InputError` if it is NaN or infinite."""
    if not math.isfinite(value):
        raise InputError(f"the {what} is {value} {where}.")
    return value


AT_THE_WEIGHTS = "at the weights themselves; the sharpness of a model that has diverged is not defined"


def projected_ascent(
    objective: Objective,
    iterations: int,
    advance: Callable[[Vector, Vector, float], Vector],
    *,
    where: str,
    scale: float = 1.0,
    scales: Vector | None = None,
) -> tuple[float, float]:
    """Searches the highest loss in a body around the weights by projected gradient ascent.

    Step sizes, relative to a body of radius 1, fall linearly from its diameter. The first reaches the boundary from
    anywhere, so that a linear loss needs no second step. Their sum grows with the budget, so that an ascent along the
    boundary is not cut short, as by the constant step 2.5 / iterations common for adversarial examples.

    Args:
        iterations: Gradients to spend.
        advance: Takes position, gradient and step size, and gives the next position, projected onto the body.
        where: Place of the search in the message for a loss that is not finite.
        scale, scales: The weights are displaced by ``scale * scales * position``.

    Returns:
        The loss at the weights, and the highest loss met there or in the body.
    """
    loss, gradient = objective.value_and_gradient()
    best = finite(loss, AT_THE_WEIGHTS)
    position: Vector = objective.zeros()
    for left in range(iterations, 0, -1):
        position = advance(position, gradient, 2 * left / iterations)
        with objective.displaced(times(position, scales), scale):
            # No step follows the last point, which therefore needs no gradient.
            value, gradient = objective.value_and_gradient() if left > 1 else (objective.value(), gradient)
        best = max(best, finite(value, where))
    return loss, best


def times(vector: Vector, scales: Vector | None) -> Vector:
    """Multiplies entry by entry; without scales returns the vector itself."""
    return vector if scales is None else [x * t for x, t in zip(vector, scales, strict=True)]
