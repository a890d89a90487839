"""The search over widths against all combinations."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.pruning.structured import search as module
from trainflat.pruning.structured.search import Numbers, search

values = st.floats(-5, 5).map(lambda x: round(x, 2))  # ties happen
instances = st.lists(st.lists(st.tuples(values, values), min_size=1, max_size=4), min_size=1, max_size=5)


def best(losses: list[Numbers], prices: list[Numbers], limit: float) -> float | None:
    """The least loss of all combinations within the limit."""
    found = None
    for options in product(*(range(len(own)) for own in losses)):
        if sum(own[i] for own, i in zip(prices, options, strict=True)) <= limit + 1e-9:
            loss = sum(own[i] for own, i in zip(losses, options, strict=True))
            found = loss if found is None else min(found, loss)
    return found


def split(instance: list[list[tuple[float, float]]]) -> tuple[list[Numbers], list[Numbers]]:
    first, second = ([np.array([pair[i] for pair in own]) for own in instance] for i in (0, 1))
    return first, second


@settings(max_examples=300, deadline=None, derandomize=True)
@given(instances, st.floats(-10, 10).map(lambda x: round(x, 2)))
def test_no_combination_within_the_limit_loses_less(instance: list[list[tuple[float, float]]], limit: float) -> None:
    losses, prices = split(instance)
    chosen, expected = search(losses, prices, limit), best(losses, prices, limit)
    if expected is None:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(own[i] for own, i in zip(prices, chosen, strict=True)) <= limit + 1e-8
    assert abs(sum(own[i] for own, i in zip(losses, chosen, strict=True)) - expected) < 1e-9


def test_thinned_out_states_keep_the_budget_and_nearly_the_loss(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    draws = np.random.default_rng(0)
    losses = [np.sort(draws.random(40))[::-1].cumsum()[::-1].copy() for _ in range(8)]
    prices = [np.sort(draws.random(40)).cumsum() for _ in range(8)]
    limit = 0.4 * sum(own[-1] for own in prices)

    def loss(chosen: list[int] | None) -> float:
        assert chosen is not None
        assert sum(own[i] for own, i in zip(prices, chosen, strict=True)) <= limit + 1e-8
        return float(sum(own[i] for own, i in zip(losses, chosen, strict=True)))

    monkeypatch.setattr(module, "_FRONT", 100_000)
    exact = loss(search(losses, prices, limit))
    monkeypatch.setattr(module, "_FRONT", 300)
    assert exact <= loss(search(losses, prices, limit)) <= exact * 1.02
    tightest = sum(own.min() for own in prices)
    assert search(losses, prices, tightest) is not None
    assert search(losses, prices, tightest - 0.01) is None
