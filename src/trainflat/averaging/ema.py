"""Exponential moving average of weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780)."""

from typing import Annotated, Any

from trainflat.averaging.base import Averaging
from trainflat.core.settings import Number, Truth


class EMA(Averaging):
    r"""Exponential moving average: a model's weight falls by the decay with every later one.

    After n models::

        w_EMA = d * w_EMA + (1 - d) * w        d = min(decay, (1 + n) / (10 + n))

    The second term warms the decay up as ``tf.train.ExponentialMovingAverage`` does with its argument ``num_updates``:
    with a constant decay of 0.999 the first weights would still weigh 0.37 after 1000 steps.

    Args:
        model: The model whose weights are averaged.
        decay: Factor of the average at each new model, in [0, 1).
        every: Optimizer steps from one model to the next.
        warmup: Whether to warm the decay up; otherwise it is constant.

    Raises:
        InputError: an option is outside its range.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = EMA(model, decay=0.75, warmup=False)
        >>> for value in (0.0, 4.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     ema.collect()
        >>> ema.copy_to_model()
        >>> model.weight.item()
        1.0
    """

    decay: Annotated[float, Number("is a share, in [0, 1)", lambda x: 0 <= x < 1)] = 0.999
    every: Annotated[int, Number("is a whole number of steps >= 1", lambda x: x >= 1, whole=True)] = 1
    warmup: Annotated[bool, Truth()] = True

    @staticmethod
    def is_due(options: Any, step: int, total_steps: int, steps_per_epoch: int) -> bool:
        return bool(step % options.every == 0)

    def share(self) -> float:
        n = self.models
        return 1 - (min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay)
