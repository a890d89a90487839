"""Loyalty: closed forms, against scipy's distance, and what it is of numbers and spans."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from trainflat.evaluation.loyalty import measure_loyalty, probability_loyalty
from trainflat.tasks.base import Head

LEAST = 1 - math.sqrt(math.log(2))  # with natural logarithms
logits = st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=6)


def task(kind: str, texts: Any = None) -> Any:
    """As much of a task as is asked for; of spans, predictions are the texts."""
    decode = lambda _, given: SimpleNamespace(predicted=np.array(given, dtype=object))  # noqa: E731
    return SimpleNamespace(head=Head(kind), decode=decode)  # type: ignore[arg-type]


def classes(first: Any, second: Any, **options: Any) -> dict[str, float]:
    return measure_loyalty(task("classification"), None, np.array(first), np.array(second), **options).scores  # type: ignore[arg-type]


def test_the_same_answers_are_loyal_and_opposite_ones_as_disloyal_as_the_base_allows() -> None:
    sure = [[50.0, -50.0], [-50.0, 50.0]]
    assert classes(sure, sure) == {"label": 100.0, "probability": 100.0}
    assert classes(sure, sure[::-1]) == {"label": 0.0, "probability": pytest.approx(100 * LEAST)}
    assert classes(sure, sure[::-1], base=2) == {"label": 0.0, "probability": pytest.approx(0.0)}
    assert pytest.approx(0.167, abs=1e-3) == LEAST


@given(logits, st.integers(0, 5), st.sampled_from(["e", 2]))
def test_probabilities_are_as_scipys_distance_row_by_row(rows: list[list[float]], seed: int, base: Any) -> None:
    one = softmax(np.array(rows), axis=-1)
    other = softmax(np.array(rows) + np.random.default_rng(seed).normal(size=(len(rows), 3)), axis=-1)
    with np.errstate(invalid="ignore"):  # of rows that differ by rounding it is the root of a negative number
        apart = [jensenshannon(p, q, base=2 if base == 2 else None) for p, q in zip(one, other, strict=True)]
    expected = 1 - np.mean(np.nan_to_num(apart))
    found = probability_loyalty(one, other, base)
    assert found == pytest.approx(expected, abs=1e-7)
    assert found == probability_loyalty(other, one, base)
    assert (0 if base == 2 else LEAST) - 1e-12 <= found <= 1


def test_rows_that_differ_by_rounding_are_numbers() -> None:
    """Of such rows scipy's distance is the root of a negative number."""
    rows = softmax(np.random.default_rng(0).normal(size=(20_000, 3)), axis=-1)
    with np.errstate(invalid="ignore"):
        assert np.isnan(jensenshannon(rows, rows * (1 + 2e-16), axis=1)).any()
    assert probability_loyalty(rows, rows * (1 + 2e-16)) == pytest.approx(1, abs=1e-7)


def test_logits_that_differ_by_a_constant_are_the_same_answer() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4))
    assert classes(rows, rows + 7)["probability"] == pytest.approx(100)


def test_numbers_are_correlated() -> None:
    first, second = np.array([[1.0], [2.0], [3.0], [9.0]]), np.array([[1.0], [4.0], [9.0], [81.0]])
    found = measure_loyalty(task("regression"), None, first, second)  # type: ignore[arg-type]
    expected = 100 * np.corrcoef(first[:, 0], second[:, 0])[0, 1]
    assert found.scores == {"pearson": pytest.approx(expected), "spearman": pytest.approx(100)}
    assert found.base is None


def test_spans_are_compared_as_answers_are() -> None:
    first, second = ["the old town", "", "Paris", "1901"], ["old town", "", "in Paris", "1902"]
    found = measure_loyalty(task("spans"), None, first, second, to="teacher")  # type: ignore[arg-type]
    assert found.scores == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 1 + 2 / 3) / 4)}
    assert found.to == "teacher"
