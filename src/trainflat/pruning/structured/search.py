"""Chooses a width for each sub-layer: the least loss that a budget allows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FRONT = (
    2048  # states kept from sub-layer to sub-layer; more are thinned out, which costs optimality but never the budget
)

Numbers = NDArray[np.float64]


def search(losses: Sequence[Numbers], prices: Sequence[Numbers], limit: float) -> list[int] | None:
    """Takes one option per sub-layer so that the sum of losses is least and the sum of prices within the limit.

    Dynamic programming over the states that no other one beats in both sums (as for the multiple-choice knapsack).
    Exact while there are at most 2,048 of them; beyond, one is kept in each of as many equal spans of the price, so
    that the price of the result is exact and its loss that of a budget smaller by a 2,048th part per sub-layer at most.

    Args:
        losses: Of each sub-layer's options.
        prices: Of the same; may be negative.
        limit: For the sum of prices.

    Returns:
        The option of each sub-layer, or None where the cheapest ones together exceed the limit.

    Example:
        >>> losses, prices = [np.array([0.0, 1.0, 5.0])] * 2, [np.array([3.0, 2.0, 0.0])] * 2
        >>> search(losses, prices, limit=4.0)
        [1, 1]
    """
    limit += 1e-9 * max(abs(limit), 1.0)  # sums of floats that are meant to be equal
    cheapest = np.append(np.cumsum([one.min() for one in prices[::-1]])[::-1], 0.0)
    price, loss, steps = np.zeros(1), np.zeros(1), []
    if cheapest[0] > limit:
        return None
    for own_loss, own_price, rest in zip(losses, prices, cheapest[1:], strict=True):
        prices_now, losses_now = np.add.outer(price, own_price).ravel(), np.add.outer(loss, own_loss).ravel()
        front = _front(prices_now, losses_now, limit - rest)
        price, loss = prices_now[front], losses_now[front]
        steps.append(np.stack(np.divmod(front, len(own_price))))
    state, chosen = int(loss.argmin()), []
    for before, option in reversed(steps):
        chosen.append(int(option[state]))
        state = int(before[state])
    return chosen[::-1]


def _front(prices: Numbers, losses: Numbers, limit: float) -> NDArray[np.int64]:
    """Returns the states within the limit that are cheaper than all with as little loss, by rising price."""
    # Whichever are thinned out, the limit can be kept: it leaves room for the cheapest options of what is to come.
    within = np.flatnonzero(prices <= limit)
    order = within[np.lexsort((losses[within], prices[within]))]
    best = np.minimum.accumulate(losses[order])
    front: NDArray[np.int64] = order[np.append(True, best[1:] < best[:-1])]
    if len(front) <= _FRONT:
        return front
    spans = (prices[front] - prices[front[0]]) / (prices[front[-1]] - prices[front[0]]) * (_FRONT - 1)
    last = np.append(np.diff(spans.astype(np.int64)) > 0, True)  # with the least loss of its span
    thinned: NDArray[np.int64] = front[last]
    return thinned
