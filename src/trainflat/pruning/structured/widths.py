"""Chooses how many units each sub-layer keeps: the least predicted loss within a budget, which is measured if time."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.progress import Progress
from trainflat.pruning.structured.budgets import Budget, Prices
from trainflat.pruning.structured.kept import Kept
from trainflat.pruning.structured.search import search
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.sub_layers import SubLayer, sub_layers
from trainflat.pruning.structured.unit_scores import Ranking

Shape = Literal["friendly", "ragged"]
"""Feed-forward widths in multiples of 32, which kernels like; or any. Heads are single either way."""

_MULTIPLE = 32
_TRIES = 6
_CLOSE = 1.1  # a cost within 10 % of the limit is the one that was asked for


class OutOfReach(InputError):
    """Raised for a budget that no model keeps to.

    Attributes:
        excess: What the model without any head and unit takes, over what it may take.
    """

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


def choose_widths(
    model: nn.Module, budget: Budget, rankings: Sequence[Ranking], shape: Shape, progress: Progress
) -> tuple[list[int], float]:
    """Returns the units to keep of each sub-layer, and what the model of these widths costs.

    Where the budget's prices are estimates, a model of the chosen widths is shrunk and measured, and the limit of the
    search is corrected by what came out, until the measured cost is within 10 % of the limit; at most six times. Time
    does not depend on which units are kept, nor on the repair of the matrices.

    Raises:
        InputError: no model that was measured keeps to the limit; names the cheapest one.
    """
    subs = sub_layers(model)
    prices = budget.prices(model, subs)
    limit, tries = prices.limit, list[tuple[float, float, list[int]]]()
    while len(tries) < _TRIES:
        widths = _search(subs, rankings, replace(prices, limit=limit), shape)
        cost = budget.measured(model, shrink(model, _kept(model, subs, rankings, widths)))
        if cost is None:
            return widths, prices.spent(widths)
        progress.say(f"{budget.shown(cost)} measured, {budget.shown(prices.limit)} allowed")
        tries.append((limit, cost, widths))
        if prices.limit / _CLOSE <= cost <= prices.limit * _CLOSE:
            return widths, cost
        limit = min(max(_next_limit(tries, prices.limit), _least(prices)), prices.dense)
    within = [(cost, widths) for _, cost, widths in tries if cost <= prices.limit * _CLOSE]
    if not within:
        raise InputError(
            f"{budget.shown(prices.limit)} was not reached: the fastest of {plural(len(tries), 'model')} took "
            f"{budget.shown(min(cost for _, cost, _ in tries))}, the dense one {budget.shown(prices.dense)}. Ask for "
            "less, or time another number of rows or tokens; times on a busy machine are not to be relied on."
        )
    cost, widths = max(within, key=lambda one: one[0])
    return widths, cost


def check_reach(model: nn.Module, budget: Budget) -> None:
    """Raises OutOfReach where no model keeps to a budget; names the smallest one that is not."""
    prices = budget.prices(model, sub_layers(model))
    least = _least(prices)
    if least > prices.limit:
        raise OutOfReach(
            f"a budget of {budget.shown(prices.limit)} is out of reach: with no head and no unit left, the model takes "
            f"{budget.shown(least)}, {least / prices.dense:.1%} of the dense one. Allow at least that.",
            least / prices.limit,
        )


def _least(prices: Prices) -> float:
    return prices.fixed + sum(float(own.min()) for own in prices.widths)


def _search(subs: Sequence[SubLayer], rankings: Sequence[Ranking], prices: Prices, shape: Shape) -> list[int]:
    options = [_options(sub, shape) for sub in subs]
    losses = [one.loss.flip(0).numpy()[own] for one, own in zip(rankings, options, strict=True)]
    spent = [one[own] for one, own in zip(prices.widths, options, strict=True)]
    found = search(losses, spent, prices.limit - prices.fixed)
    assert found is not None, "the reach was checked, and the options include no unit at all"
    return [own[i] for own, i in zip(options, found, strict=True)]


def _options(sub: SubLayer, shape: Shape) -> list[int]:
    """Lists the numbers of units that may be kept: none and all are always among them."""
    step = _MULTIPLE if shape == "friendly" and sub.kind == "feed-forward" else 1
    return [*range(0, len(sub.units), step), len(sub.units)]


def _kept(model: nn.Module, subs: Sequence[SubLayer], rankings: Sequence[Ranking], widths: Sequence[int]) -> Kept:
    gone = [
        sub.units[int(i)]
        for sub, ranking, width in zip(subs, rankings, widths, strict=True)
        for i in ranking.order[: len(sub.units) - width]
    ]
    return Kept.all(anatomy_of(model)).without(gone)


def _next_limit(tries: Sequence[tuple[float, float, list[int]]], limit: float) -> float:
    """Halves the span between a limit that was too low and one that was too high, in logarithms; else moves it along.

    Moves are as if cost fell more slowly than the limit, with a power of at least a half: a measured time may be off,
    and where it barely falls, a line through two of them leads to a model without any unit.
    """
    low = max((asked for asked, cost, _ in tries if cost <= limit), default=None)
    high = min((asked for asked, cost, _ in tries if cost > limit), default=None)
    if low is not None and high is not None and low < high:
        return math.sqrt(low * high)
    (asked, cost, _), power = tries[-1], 1.0
    if len(tries) > 1 and tries[-2][0] != asked:
        before, costed, _ = tries[-2]
        power = min(max(math.log(cost / costed) / math.log(asked / before), 0.5), 1.0)
    wanted: float = asked * (limit / cost) ** (1 / power)
    return wanted
