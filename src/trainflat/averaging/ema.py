"""Exponential moving average of weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780)."""

from torch import nn

from trainflat.averaging.base import Averaging, checked
from trainflat.core.errors import InputError


class EMA(Averaging):
    r"""Average in which a model counts the less the longer ago it was.

    With n models taken in::

        w_EMA = d * w_EMA + (1 - d) * w        d = min(decay, (1 + n) / (10 + n))

    The second term warms the decay up, so that a short training is not dominated by its first weights. It is that of
    ``tf.train.ExponentialMovingAverage`` with its argument ``num_updates``.

    Args:
        model: Whose weights are averaged.
        decay: What the average keeps of itself per model, in [0, 1).
        every: Optimizer steps from one model to the next.
        warmup: Whether the decay is warmed up; without, it is constant.

    Raises:
        InputError: an option is not such a value.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = EMA(model, decay=0.75, warmup=False)
        >>> for value in (0.0, 4.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     ema.collect()
        >>> ema.copy_to_model()
        >>> model.weight.item()
        1.0
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, every: int = 1, warmup: bool = True) -> None:
        super().__init__(model)
        self.decay = checked("decay", decay, "a share, in [0, 1)", lambda x: 0 <= x < 1)
        self.every = int(checked("every", every, "a whole number of steps >= 1", lambda x: x >= 1 and x == int(x)))
        if not isinstance(warmup, bool):
            raise InputError(f"warmup is true or false, got {warmup!r}.")
        self.warmup = warmup

    def takes(self, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        """Returns whether the step is a multiple of ``every``."""
        return step % self.every == 0

    def share(self) -> float:
        """Returns 1 minus the decay."""
        n = self.models
        return 1 - (min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay)
