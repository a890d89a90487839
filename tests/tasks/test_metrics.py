"""Scores against their definitions, and where those divide by zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.core.errors import TrainingDiverged
from trainflat.tasks import metrics


@settings(deadline=None)
@given(*[st.integers(0, 40)] * 4)
def test_two_classes_against_the_formulas(tp, fp, fn, tn):
    counts = tp + fp + fn + tn
    if counts == 0:
        return
    gold = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])
    predicted = np.repeat([1, 1, 0, 0], [tp, fp, fn, tn])
    under = float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert metrics.accuracy(gold, predicted) == pytest.approx(100 * (tp + tn) / counts)
    assert metrics.f1(gold, predicted) == pytest.approx(200 * tp / (2 * tp + fp + fn) if tp else 0)
    assert metrics.matthews(gold, predicted) == pytest.approx(100 * (tp * tn - fp * fn) / under if under else 0)


def test_macro_f1_is_the_mean_over_the_classes():
    gold, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    scores = metrics.evaluate(["f1"], gold, predicted, classes=3)
    assert scores["f1"] == pytest.approx(100 * (1 / 2 + 2 / 3 + 0) / 3)


def test_f1_of_three_classes_stays_macro_when_the_third_does_not_occur():
    gold, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert metrics.evaluate(["f1"], gold, predicted, classes=3)["f1"] == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)
    assert metrics.evaluate(["f1"], gold, predicted, classes=2)["f1"] == pytest.approx(100 * 2 / 3)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30, unique=True), st.floats(0.1, 10), st.floats(-5, 5))
def test_correlations_do_not_see_scale_and_shift(values, scale, shift):
    gold = np.array(values, dtype=float)
    assert metrics.pearson(gold, scale * gold + shift) == pytest.approx(100)
    assert metrics.pearson(gold, -scale * gold + shift) == pytest.approx(-100)
    assert metrics.spearman(gold, gold**3) == pytest.approx(100)


def test_pearson_by_hand():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([2.0, 1.0, 5.0])
    cov = ((x - x.mean()) * (y - y.mean())).sum()
    assert metrics.pearson(x, y) == pytest.approx(100 * cov / (x.std() * y.std() * 3))


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman])
@pytest.mark.parametrize("predicted", [[2.5, 2.5, 2.5], [1e30, 1e30, 1e30], [0.0, 0.0, 0.0]])
def test_a_constant_correlates_with_nothing(metric, predicted):
    assert metric(np.array([0.0, 2.0, 5.0]), np.array(predicted)) == 0.0
    assert metric(np.array(predicted), np.array([0.0, 2.0, 5.0])) == 0.0


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman])
def test_rounding_noise_of_a_constant_correlates_with_nothing(metric):
    gold = np.linspace(0, 5, 50)
    noise = 2.5 + 1e-6 * np.random.default_rng(0).standard_normal(50)  # as padding moves the last bits of float32
    assert metric(gold, noise) == 0.0
    assert metric(gold, 2.5 + 1e-3 * gold) == pytest.approx(100)


def test_one_row_has_no_correlation():
    assert metrics.pearson(np.array([1.0]), np.array([1.0])) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_stops_the_run(bad):
    with pytest.raises(TrainingDiverged, match="predictions on validation are not numbers"):
        metrics.check_finite("validation", np.zeros(3), np.array([0.0, bad]))
