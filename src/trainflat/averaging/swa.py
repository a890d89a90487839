"""Stochastic weight averaging (Izmailov et al., UAI 2018, arXiv:1803.05407)."""

from fractions import Fraction
from functools import cache
from typing import Annotated, Any

from trainflat.averaging.base import Averaging
from trainflat.core.settings import Number


class SWA(Averaging):
    r"""Equal average of the checkpoints of the last part of training.

    After n models, algorithm 1 of the paper::

        w_SWA = (w_SWA * n + w) / (n + 1)

    The defaults are those of Na, Mehta and Strubell 2022 (arXiv:2205.12694) for tasks of ten epochs, where the ends of
    epochs 6 to 10 are averaged; in tasks of three epochs they average the weights at 2, 2.5 and 3 (``every=0.5``).

    Departs from Izmailov et al. as Na et al. do: the learning rate follows the training's schedule (there: linear to
    0), where the paper keeps it constant or cyclic to keep exploring.

    Args:
        model: The model whose weights are averaged.
        start: Share of the training after which averaging begins, itself excluded; in [0, 1).
        every: Epochs from one model to the next, counted from the start of the training; fractions are allowed. Where
            a multiple is no whole number of steps, the next step counts.

    Raises:
        InputError: an option is outside its range.

    Example:
        >>> from torch import nn
        >>> swa = SWA(nn.Linear(2, 2), start=0.5, every=0.5)
        >>> [step for step in range(1, 31) if swa.takes(step, total_steps=30, steps_per_epoch=10)]
        [20, 25, 30]
    """

    start: Annotated[float, Number("is a share of the training, in [0, 1)", lambda x: 0 <= x < 1)] = 0.5
    every: Annotated[float, Number("is a number of epochs > 0", lambda x: x > 0)] = 1.0

    @staticmethod
    def is_due(options: Any, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        # Exact fractions: 3 * 0.1 is above 0.3 in floating point, and would come a step late. ``start`` is compared
        # with the multiple, not with the step: with an odd number of steps per epoch the step after 1.5 epochs lies
        # beyond half of 3 epochs, and 1.5 itself does not.
        start, every = _exact(options.start), _exact(options.every)
        period, parts = every.numerator * steps_per_epoch, every.denominator
        multiple = step * parts // period
        if multiple == (step - 1) * parts // period:
            return False
        return multiple * every * steps_per_epoch > start * total_steps

    def share(self) -> float:
        return 1 / (self.models + 1)


@cache
def _exact(value: float) -> Fraction:
    return Fraction(str(value))
