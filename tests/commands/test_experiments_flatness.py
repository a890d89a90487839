"""The statistics of ``experiments.flatness_table`` on runs whose ranks are known."""

import itertools
from functools import cache
from typing import Any

import pytest
from scipy.stats import spearmanr

from experiments import flatness_table
from experiments.flatness_table import correlation, correlations, markdown

COSTS = ("retrained", "one_shot")


known = cache(lambda x, y: correlation(list(x), list(y)))


@pytest.fixture(autouse=True)
def each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand pairings and two thousand draws take a second, and many runs here have the same numbers."""
    monkeypatch.setattr(flatness_table, "correlation", lambda x, y: known(tuple(x), tuple(y)))


def one(method: str, seed: int, sharp: float, lost: float) -> dict[str, Any]:
    flatness = {"ball_0.05": sharp, "trace": -sharp, "trace_error": sharp, "eigenvalue_lowest": sharp}
    found = {"task": "cola", "method": method, "seed": seed, "passes": 10, "dense": 30.0, "pruned": 30.0 - lost}
    pair = {"dense": flatness, "pruned": flatness}
    return found | {"flatness": pair, "lost": dict.fromkeys(COSTS, lost), "one_shot": {"0.5": 30.0 - lost}}


def test_a_correlation_of_few_is_that_of_all_its_pairings():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]
    found = correlation(x, y)
    assert found is not None
    strengths = [abs(spearmanr(order, y).statistic) for order in itertools.permutations(x)]
    assert found["rho"] == 0.8
    assert found["p"] == pytest.approx(sum(s >= 0.8 - 1e-12 for s in strengths) / 120, abs=1e-3)
    assert -1 <= found["low"] <= found["rho"] <= found["high"] <= 1


def test_what_is_the_same_everywhere_has_no_ranks():
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_seeds_of_one_method_are_one_point():
    """Its runs are alike: more of them are no more evidence that a measure tells methods apart."""
    methods = [("a", 1.0, 3.0), ("b", 2.0, 1.0), ("c", 3.0, 2.0), ("d", 4.0, 4.0)]
    single = [one(name, 0, sharp, lost) for name, sharp, lost in methods]
    several = [
        one(n, seed, sharp + shift, lost - shift) for n, sharp, lost in methods for seed, shift in ((0, 0.1), (1, -0.1))
    ]
    assert correlations(several) == correlations(single)
    assert {(c["measure"], c["rho"], c["methods"]) for c in correlations(several)} == {
        ("ball_0.05", 0.4, 4),
        ("trace", -0.4, 4),
    }


def test_a_model_that_learned_nothing_is_no_evidence():
    """It is flat, and pruning costs it nothing."""
    runs = [one(name, 0, k, k) for k, name in enumerate("abcdef", 1)]
    constant = one("constant", 0, 0.0, 9.0) | {"dense": 0.0}
    assert correlations([*runs, constant]) == correlations(runs)


def test_the_table_says_what_chance_alone_would_show():
    runs = [one(name, 0, k, k) for k, name in enumerate("abcdef", 1)]
    text = markdown(runs, correlations(runs))
    assert "| cola | ball_0.05 | pruned to 50 % and trained on | +1.00 |" in text
    assert "| 0.003 | 6 |" in text
    assert text.endswith(
        "4 of 4 correlations have p ≤ 0.05; 0.2 would have it by chance. They are not independent: all stand on the "
        "same models.\n"
    )
