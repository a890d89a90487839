"""Differences over seeds and rows: their variance by another road, limits with one seed, and what must not matter."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from trainflat.core.margins import GROUPS, Score, difference
from trainflat.core.paired import Paired, holm, paired

ROWS = 200
points = st.floats(-20, 20).map(lambda value: round(value, 3))
cells = st.lists(st.lists(points, min_size=GROUPS, max_size=GROUPS), min_size=2, max_size=5).map(np.array)


def scores(means: np.ndarray, start: float = 50.0) -> list[Score]:
    """Scores whose groups of rows, all of one size, have these means [S, G]; without a group it is the others' mean."""
    return [
        Score(
            value=start + row.mean(),
            rows=ROWS,
            without=[start + float(np.delete(row, g).mean()) for g in range(GROUPS)],
        )
        for row in means
    ]


def level(count: int, start: float = 50.0) -> list[Score]:
    return scores(np.zeros((count, GROUPS)), start)


def half(found: Paired) -> float:
    return (found.high - found.low) / 2


def by_analysis_of_variance(means: np.ndarray) -> float:
    """Half the interval, from mean squares of seeds, rows and their interaction instead of jackknives."""
    seeds, groups = means.shape
    overall, by_seed, by_group = means.mean(), means.mean(1), means.mean(0)
    rows = seeds * ((by_group - overall) ** 2).sum() / (groups - 1)
    both = ((means - by_seed[:, None] - by_group + overall) ** 2).sum() / ((seeds - 1) * (groups - 1))
    common = max(0.0, (rows - both) / seeds) / groups + (100 / ROWS) ** 2
    own = by_seed.var(ddof=1) / seeds
    return sqrt(t.ppf(0.975, seeds - 1) ** 2 * own + t.ppf(0.975, GROUPS - 1) ** 2 * common)


@given(cells)
def test_the_interval_is_that_of_the_analysis_of_variance(means: np.ndarray) -> None:
    found = paired(scores(means), level(len(means)), same_rows=True)
    assert found.value == pytest.approx(means.mean(), abs=1e-9)
    assert half(found) == pytest.approx(by_analysis_of_variance(means), rel=1e-6, abs=1e-6)
    assert (found.seeds, found.rows, found.over) == (len(means), ROWS, "seeds and rows")


@given(cells)
def test_an_interval_excludes_no_difference_where_p_is_small(means: np.ndarray) -> None:
    found = paired(scores(means), level(len(means)), same_rows=True)
    assert found.significant == (found.p < 0.05)
    assert found.low <= found.value <= found.high and 0 <= found.p <= 1


@given(cells, st.permutations(range(2)), points)
def test_order_of_seeds_side_and_level_do_not_matter(means: np.ndarray, order: list[int], more: float) -> None:
    one = paired(scores(means), level(len(means)), same_rows=True)
    turned = paired(level(len(means), 50 + more), scores(means[::-1], 50 + more), same_rows=True)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-6)
    assert turned.p == pytest.approx(one.p, abs=1e-6)


def test_p_is_that_of_student_where_only_seeds_vary() -> None:
    means = np.repeat([[1.0], [2.0], [6.0]], GROUPS, 1)
    huge = [score.model_copy(update={"rows": 10**9}) for score in scores(means)]
    found = paired(huge, [score.model_copy(update={"rows": 10**9}) for score in level(3)], same_rows=True)
    statistic = 3.0 / (np.std([1, 2, 6], ddof=1) / sqrt(3))
    assert found.p == pytest.approx(2 * t.sf(statistic, 2), rel=1e-6)
    assert half(found) == pytest.approx(t.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / sqrt(3))


def test_one_seed_is_the_interval_over_its_rows() -> None:
    (one,), (other,) = scores(np.arange(GROUPS)[None].astype(float)), level(1)
    for sides in ((one, other), (one.model_copy(update={"without": []}), other)):
        found, alone = paired([sides[0]], [sides[1]], same_rows=True), difference(*sides)
        assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))
        assert found.over == ("rows" if sides[0].without else "number of rows") and found.seeds == 1


def test_seeds_stand_alone_where_records_do_not_hold_what_rows_tell() -> None:
    means = np.array([[1.0], [2.0], [6.0]]) + 8 * np.sin(np.arange(GROUPS))
    whole = scores(means)
    old = [score.model_copy(update={"without": []}) for score in whole]
    alone = paired(old, level(3), same_rows=True)
    assert alone.over == "seeds" and half(alone) < half(paired(whole, level(3), same_rows=True))
    # Rows that each seed holds out anew vary with it: nothing is left out.
    own = paired(old, level(3), same_rows=False)
    assert own.over == "seeds and rows" and half(own) == half(alone) == half(paired(whole, level(3), same_rows=False))


def test_equal_seeds_are_not_certain_on_few_rows() -> None:
    """Three seeds that all gain one row have no spread, and yet one row is not much to stand on."""
    found = paired(level(3, 50.5), level(3), same_rows=True)
    assert found.low < 0 < found.high and found.value == 0.5
    assert paired(level(3), level(3), same_rows=True).p == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_rejects(values: list[float]) -> None:
    """The lowest p is held against 0.05 / m, the next against 0.05 / (m - 1), and so on until one fails."""
    rejected, ordered = set(), sorted(range(len(values)), key=values.__getitem__)
    for rank, k in enumerate(ordered):
        if values[k] > 0.05 / (len(values) - rank):
            break
        rejected.add(k)
    assert {k for k, p in enumerate(holm(values)) if p <= 0.05 + 1e-15} >= rejected
    assert {k for k, p in enumerate(holm(values)) if p <= 0.05 - 1e-15} <= rejected
