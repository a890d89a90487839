"""Budgets: how many parameters or multiply-adds a pruned model may have, or how long a pass may take."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.settings import Number, checked
from trainflat.pruning.structured.costs import (
    calls_per_layer,
    layer_parameters,
    multiply_adds_per_unit,
    parameters_per_unit,
    tensors_of,
)
from trainflat.pruning.structured.latency import LatencyTable, Positive, Timer
from trainflat.pruning.structured.search import Numbers
from trainflat.pruning.structured.sub_layers import SubLayer

Share = Annotated[float, Number("is the share that may be left, above 0 and at most 1", lambda x: 0 < x <= 1)]
Count = Annotated[int, Number("is a number above 0", lambda x: x > 0, whole=True)]
Length = Annotated[int, Number("is a number of positions, at least 1", lambda x: x >= 1, whole=True)]


@dataclass(frozen=True)
class Prices:
    """Says what each width of each sub-layer costs.

    Attributes:
        widths: For each sub-layer, the price of keeping 0, 1, ... of its units [units + 1].
        fixed: The price of everything else.
        limit: What all of it together may cost.
    """

    widths: tuple[Numbers, ...]
    fixed: float
    limit: float

    @property
    def dense(self) -> float:
        return self.fixed + sum(float(own[-1]) for own in self.widths)

    def spent(self, widths: Sequence[int]) -> float:
        return self.fixed + sum(float(own[k]) for own, k in zip(self.widths, widths, strict=True))


class Budget(ABC):
    """Prices the widths of a model's sub-layers."""

    unit: ClassVar[str]
    """What is counted, for messages and records."""

    def shown(self, amount: float) -> str:
        """Formats an amount with its unit, for messages."""
        return f"{amount:,.0f} {self.unit}"

    @abstractmethod
    def prices(self, model: nn.Module, subs: Sequence[SubLayer]) -> Prices:
        """Returns the prices of a dense model's sub-layers."""

    def measured(self, dense: nn.Module, small: nn.Module) -> float | None:
        """Measures what a shrunk model really costs; None where prices are no estimates."""
        return None


class Parameters(Budget):
    """Limits the number of parameters.

    Args:
        share: Of the layers' parameters, LayerNorms and biases included, that may be left; or
        count: Parameters of the whole model that may be left.
    """

    unit = "parameters"

    def shown(self, amount: float) -> str:
        return f"{plural(round(amount), 'parameter', form=',')} ({4 * amount / 1e6:.1f} MB as float32)"

    @checked
    def __init__(self, share: Share | None = None, count: Count | None = None) -> None:
        if (share is None) == (count is None):
            raise InputError("a budget of parameters is a share or a count. Give one of the two.")
        self.share, self.count = share, count

    def prices(self, model: nn.Module, subs: Sequence[SubLayer]) -> Prices:
        tensors = tensors_of(model)
        widths = tuple(_linear(sub, parameters_per_unit(sub, tensors)) for sub in subs)
        whole = layer_parameters(model) if self.count is None else sum(p.numel() for p in model.parameters())
        limit = float(whole * self.share if self.share is not None else self.count or 0)
        return Prices(widths, whole - sum(float(own[-1]) for own in widths), limit)


class MultiplyAdds(Budget):
    """Limits the multiply-adds of the layers: of their matrices, and of attention's scores and values.

    Args:
        share: Of the layers' multiply-adds that may be left.
        length: Positions per row that attention runs over.
    """

    unit = "multiply-adds per position"

    @checked
    def __init__(self, share: Share, length: Length = 128) -> None:
        self.share, self.length = share, length

    def prices(self, model: nn.Module, subs: Sequence[SubLayer]) -> Prices:
        tensors, calls = tensors_of(model), calls_per_layer(model)
        widths = tuple(_linear(sub, calls * multiply_adds_per_unit(sub, tensors, self.length)) for sub in subs)
        return Prices(widths, 0.0, self.share * sum(float(own[-1]) for own in widths))


class Latency(Budget):
    """Limits the time of a forward pass, as measured on this machine.

    Args:
        table: Times of the sub-layers at each width.
        milliseconds: Of a whole pass that it may take; or
        speedup: How many times as fast as the dense model it shall be.
        timer: Takes the times of whole models; see :func:`measure_table`.
    """

    unit = "seconds"

    def shown(self, amount: float) -> str:
        return f"{amount * 1000:.3g} ms"

    @checked
    def __init__(
        self,
        table: LatencyTable,
        milliseconds: Positive | None = None,
        speedup: Positive | None = None,
        timer: Timer | None = None,
    ) -> None:
        if (milliseconds is None) == (speedup is None):
            raise InputError("a budget of latency is milliseconds or a speedup. Give one of the two.")
        self.table, self.milliseconds, self.speedup, self.timer = table, milliseconds, speedup, timer

    def prices(self, model: nn.Module, subs: Sequence[SubLayer]) -> Prices:
        calls = calls_per_layer(model)
        widths = tuple(calls * self.table.seconds_by_width(model, sub) for sub in subs)
        dense, empty = self.table.dense, self.table.empty
        # A layer by itself runs on other caches than among its fellows, so that the parts do not add up to the whole.
        scale = (dense - empty) / max(sum(float(own[-1]) for own in widths), 1e-12)
        limit = dense / self.speedup if self.speedup is not None else (self.milliseconds or 0) / 1000
        return Prices(tuple(scale * own for own in widths), empty, limit)

    def measured(self, dense: nn.Module, small: nn.Module) -> float:
        seconds, seconds_dense = self.table.compare(small, dense, self.timer)
        # Both in turn: between this moment and the table's the machine's speed may have changed.
        return seconds if self.speedup is None else self.table.dense * seconds / seconds_dense


def _linear(sub: SubLayer, per_unit: int) -> Numbers:
    return np.arange(len(sub.units) + 1, dtype=np.float64) * per_unit
