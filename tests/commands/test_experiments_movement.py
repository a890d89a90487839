"""The statistics of ``experiments.movement_table`` on runs whose scores are known, and the recipes that it reads."""

from math import sqrt
from typing import Any

import pytest
from scipy.stats import ttest_1samp

from experiments.movement import METHODS, pruning, teaching
from experiments.movement_table import differences, markdown
from trainflat.recipe import load_recipe


def one(method: str, seed: int, score: float, remaining: float = 10.0) -> dict[str, Any]:
    found = {"task": "sst2", "metric": "accuracy", "method": method, "remaining_percent": remaining, "seed": seed}
    return found | {"score": score, "validation_rows": 100, "teacher": 90.0, "passes": 10}


def test_sam_is_compared_seed_by_seed():
    """Over the seeds that both were run with; the interval is that of a t test on the differences."""
    rows = [one("hard", seed, score) for seed, score in enumerate((70.0, 80.0, 60.0, 75.0))]
    rows += [one("hard-sam", seed, score) for seed, score in enumerate((72.0, 81.0, 66.0))]
    [found] = differences([*rows, one("soft", 0, 50.0), one("soft-sam", 0, 50.0, 3.0)])
    assert (found["method"], found["remaining_percent"], found["gains"]) == ("hard", 10.0, [2.0, 1.0, 6.0])
    low, high = ttest_1samp([2.0, 1.0, 6.0], 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))


def test_rows_alone_leave_an_interval():
    """Of two coins that are thrown a hundred times each: a sum of binomial variances."""
    [found] = differences([one("soft", 0, 50.0), one("soft-sam", 0, 80.0)])
    assert found["rows_95"] == pytest.approx(1.96 * 100 * sqrt(0.25 / 100 + 0.16 / 100))
    assert found["mean"] == 30.0 and found["low"] is None


def test_the_tables_say_what_is_known():
    rows = [one("hard", 0, 70.0), one("hard-sam", 0, 75.5), one("teacher", 0, 90.0, 100.0) | {"teacher": None}]
    lines = markdown(rows, differences(rows)).splitlines()
    assert "| teacher | 100 % | 1 | 90.0 |  | 10 |" in lines
    assert "| hard | 10 % | 1 | 70.0 | -20.0 | 10 |" in lines
    assert any(line.startswith("| hard | 10 % | 1 | +5.5 | ± 12.") for line in lines)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("remaining", [0.1, 0.03])
def test_every_run_is_a_recipe(method: str, remaining: float):
    recipe = load_recipe(pruning(method, remaining, 0, "teacher"))
    gate, optimizer = recipe.protocol.gate.section(), recipe.training.optimizer.name
    assert recipe.name == f"sst2-{method}-{round(100 * remaining)}"
    assert gate.get("sparsity", gate.get("target_sparsity")) == 1 - remaining
    assert (gate.get("perturb"), optimizer) == (("weights", "sam") if method.endswith("-sam") else (None, "adamw"))
    assert load_recipe(teaching(0)).task == recipe.task
