"""How often intervals hold the truth: ours with few seeds and rows, and those that are not taken."""

from dataclasses import replace

import pytest

from experiments.coverage import Setting, measure, scores, simulate
from trainflat.core.files import read_json
from trainflat.tasks.metrics import METRICS

FEW = Setting("accuracy", seeds=3, rows=100, spread=0.1)


def test_three_seeds_are_too_few_for_a_bootstrap_and_not_for_ours() -> None:
    found = measure(replace(FEW, spread=0.5), draws=80)
    assert found["ours_holds"] >= 0.9 and found["bootstrap_holds"] <= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "matthews", "pearson"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_intervals_hold_the_truth_in_95_of_100_draws(metric: str, seeds: int, spread: float) -> None:
    found = measure(Setting(metric, seeds, 277, spread), draws=600)
    assert found["ours_holds"] >= 0.95 - 2.4 * (0.05 * 0.95 / 600) ** 0.5


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "pearson"])
def test_simulated_scores_are_those_of_the_tasks(metric: str) -> None:
    import numpy as np

    gold, answers = simulate(Setting(metric, 2, 47, 0.2), 1, np.random.default_rng(3))
    values, without = scores(metric, gold, answers)
    assert values[0, 1, 0] == pytest.approx(METRICS[metric](gold[0], answers[0, 1, 0]))
    kept = np.arange(47) % 20 != 4
    assert without[0, 0, 1, 4] == pytest.approx(METRICS[metric](gold[0, kept], answers[0, 0, 1, kept]))


def test_the_committed_record_is_of_this_simulation() -> None:
    rows = read_json("results/statistics/coverage.json")
    assert min(row["ours_holds"] for row in rows) >= 0.935
    assert min(row["bootstrap_holds"] for row in rows if "bootstrap_holds" in row) < 0.8
