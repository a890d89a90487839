"""Computes what a gated structure is expected to cost by a budget: parameters, multiply-adds or measured time."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.pruning.gates.lagrangian import Size
from trainflat.pruning.structured.budgets import Budget
from trainflat.pruning.structured.kept import Kept
from trainflat.pruning.structured.sub_layers import SubLayer, sub_layers

_UNITS = {"attention": "head", "feed-forward": "feed-forward unit"}


@dataclass(frozen=True)
class _Part:
    """Holds one sub-layer's prices: of keeping 0, 1, ... of its units [units + 1]."""

    sub: SubLayer
    prices: Tensor

    @property
    def units(self) -> str:
        return f"{_UNITS[self.sub.kind]} {self.sub.place}"

    @property
    def whole(self) -> str:
        return f"{self.sub.kind} sub-layer {self.sub.place}"

    def at(self, width: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the price of an expected width, interpolated between whole ones, and its slope."""
        below = int(width.floor().clamp(0, len(self.prices) - 2))
        slope = self.prices[below + 1] - self.prices[below]
        return self.prices[below] + (width - below) * slope, slope


class ExpectedPrice(Size):
    r"""Computes the expected share of a budget's price that is gone, from the chances that gates are open.

    A sub-layer costs :math:`p(0) + P(\text{sub-layer})\,(p(E) - p(0))` with the budget's price p of a width and the
    expected width E, the sum of its units' chances; p is interpolated, so that times, which go by steps, have slopes.
    CoFi (Xia, Zhong and Chen, ACL 2022) counts parameters alone; see
    :class:`~trainflat.pruning.gates.lagrangian.ExpectedSize`.

    Args:
        model: The dense model.
        budget: Prices the widths; its limit is the target.
        hidden: Whether hidden dimensions are gated, whose number a price of widths does not know.

    Attributes:
        target: Share of the price that has to go.

    Raises:
        InputError: hidden dimensions are gated, or the budget does not fit the model.
    """

    def __init__(self, model: nn.Module, budget: Budget, *, hidden: bool) -> None:
        if hidden:
            raise InputError("a budget prices heads and units of the whole hidden size. Set hidden to false.")
        subs = sub_layers(model)
        prices = budget.prices(model, subs)
        self.fixed, self.dense = prices.fixed, prices.dense
        self.parts = [_Part(sub, torch.from_numpy(own)) for sub, own in zip(subs, prices.widths, strict=True)]
        self.target = max(0.0, 1 - prices.limit / prices.dense)

    def sparsity(self, chances: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        spent, slopes = torch.full((1,), self.fixed, dtype=torch.float64), {}
        for part in self.parts:
            units, whole = chances[part.units], chances[part.whole]
            price, slope = part.at(units.sum())
            nothing = part.prices[0]
            spent = spent.to(whole) + nothing + whole * (price - nothing)
            slopes[part.units] = (-whole * slope / self.dense).expand_as(units)
            slopes[part.whole] = ((nothing - price) / self.dense).expand_as(whole)
        return 1 - spent / self.dense, slopes

    def gone(self, kept: Kept) -> float:
        """Returns the share of the price that a shrunk model would not have."""
        return 1 - self.price(kept) / self.dense

    def price(self, kept: Kept) -> float:
        """Returns the price of a shrunk model, in the budget's unit."""
        return self.fixed + sum(float(part.prices[_width(part.sub, kept)]) for part in self.parts)


def _width(sub: SubLayer, kept: Kept) -> int:
    layer = kept.layers[sub.place]
    attention = sub.kind == "attention"
    state = layer.attention_state if attention else layer.feed_forward_state
    return int((layer.heads if attention else layer.units).count_nonzero()) if state == "alive" else 0
