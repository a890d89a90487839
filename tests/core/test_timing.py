"""What `trainflat bench` makes of its times: closed forms, and what it refuses to say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.support.records import comparison
from trainflat.commands.bench.compare import speedup, timing
from trainflat.commands.bench.variants import labels
from trainflat.core.margins import GROUPS
from trainflat.core.timing import Clock, Sample, median_interval
from trainflat.records.comparison import Cell, Timing
from trainflat.records.run import Fingerprint
from trainflat.report.comparison import NOT_SIGNIFICANT, cell_rows, notes, variant_rows

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


@given(times)
def test_the_interval_holds_the_median_as_often_as_it_says_and_no_narrower_one_does(values: list[float]) -> None:
    n, ordered = len(values), sorted(values)
    low, high = median_interval(values)
    # Beyond the k-th of n sorted values lies the median with the probability of fewer than k heads in n throws.
    ranks = [k for k in range(1, n // 2 + 1) if 2 * binom.cdf(k - 1, n, 0.5) <= 0.05]
    expected = (ordered[ranks[-1] - 1], ordered[-ranks[-1]]) if ranks else (-math.inf, math.inf)
    assert (low, high) == expected


def test_the_interval_holds_the_median_of_skewed_times() -> None:
    drawn = np.random.default_rng(0).exponential(size=(4000, 9))
    inside = [low <= math.log(2) <= high for low, high in map(median_interval, drawn.tolist())]
    exact = 1 - 2 * binom.cdf(1, 9, 0.5)
    assert abs(np.mean(inside) - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)


def test_a_speedup_is_the_median_of_the_rounds_ratios() -> None:
    found = speedup([2, 4, 6, 80, 10, 12, 14], [1, 2, 2, 40, 5, 4, 7])  # a slow round that both shared cancels
    assert (found.low, found.value, found.high) == (2, 2, 3)


@given(st.lists(st.floats(0.5, 2.0), min_size=6, max_size=20))
def test_no_speedup_is_told_where_its_interval_holds_one(ratios: list[float]) -> None:
    found = speedup(ratios, [1.0] * len(ratios))
    assert found.low is not None and found.high is not None
    assert (found.value is None) == (found.low <= 1 <= found.high)


def test_too_few_rounds_tell_nothing() -> None:
    found = speedup([9.0] * 5, [1.0] * 5)
    assert (found.low, found.value, found.high) == (None, None, None)
    assert speedup([9.0] * 6, [1.0] * 6).value == 9


def test_timing_is_median_and_quartiles_and_counts_noisy_rounds() -> None:
    found = timing([Sample(s, f) for s, f in [(4.0, 0.0), (1.0, 0.9), (3.0, 0.0), (2.0, 0.0), (5.0, 0.2)]], None)
    assert (found.low, found.median, found.high, found.noisy, found.speedup) == (2, 3, 4, 2, None)
    assert found.samples == [4, 1, 3, 2, 5]


ROWS = {"split": "validation", "data": {"validation": Fingerprint(rows=300, sha256="", source="file:dev.csv")}}


def stars(*points: tuple[float, float | None, int], **more: Any) -> list[int]:
    found = comparison(list(points), **ROWS, **more)
    assert [n for n, row in enumerate(cell_rows(found, found.cells[0])) if row["Best"]] == sorted(
        found.frontier(found.cells[0])
    )
    return found.frontier(found.cells[0])


def test_a_star_stands_only_where_something_is_told_apart() -> None:
    assert stars((1.0, 72.0, 9), (1.0, 72.0, 9)) == []  # one file twice
    assert stars((1.0, 72.67, 9), (1.0, 72.0, 9)) == []  # two rows of 300
    assert stars((1.0, 72.67, 9), (0.5, 72.0, 9)) == [1]  # faster, and as good as the rows can tell
    assert stars((1.0, 90.0, 9), (1.0, 60.0, 9)) == [0]
    assert stars((2.0, 90.0, 9), (1.0, 60.0, 9)) == [1, 0]  # each at its price
    assert stars((1.0, 90.0, 9), (1.0, 90.0, 9), (2.0, 60.0, 9)) == [0, 1]  # none beats either
    assert stars((1.0, None, 900), (1.0, None, 901)) == []  # two headers
    assert stars((1.0, None, 900), (1.0, None, 300), (2.0, None, 300)) == [1]


def test_pairs_of_answers_tell_what_the_number_of_rows_does_not() -> None:
    found = comparison([(1.0, 95.0, 9), (1.0, 92.0, 9)], **ROWS, metric="accuracy")
    assert found.frontier(found.cells[0]) == []
    assert variant_rows(found)[1]["Over the first"] == NOT_SIGNIFICANT
    paired = [one.model_copy(update={"without": [one.score] * GROUPS}) for one in found.variants]
    found = found.model_copy(update={"variants": paired})
    assert found.frontier(found.cells[0]) == [0]
    assert variant_rows(found)[1]["Over the first"] == "-3.00 [-3.70, -2.30]"


@given(st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(74, 77)), min_size=2, max_size=6), st.integers(0, 10**6))
def test_no_star_where_all_differences_lie_inside_the_noise(points: list[tuple[float, float]], seed: int) -> None:
    """Rounds that are now faster, now slower, and scores within four points on 300 rows."""
    draw = np.random.default_rng(seed)
    found = comparison([(1.0, score, 9) for _, score in points], **ROWS)
    rounds = [1 + 0.1 * draw.permutation([-3, -2, -1, 1, 2, 3, 0]) for _ in points]
    half = [np.where(np.arange(7) % 2, times, 2 - times).tolist() for times in rounds]
    timings = [timing([Sample(t, 0.0) for t in times], None) for times in half]
    apart = [speedup(one, other).value for one in half for other in half if one is not other]
    cell = found.cells[0].model_copy(update={"timings": timings})
    assert (found.frontier(cell) == []) == (set(apart) == {None})


def test_what_learned_nothing_is_said_below_the_tables() -> None:
    found = comparison([(1.0, 52.7, 9), (1.0, 52.7, 9)], **ROWS, metric="accuracy")
    blind = found.variants[1].model_copy(update={"remark": "every answer is no"})
    assert "m1, torch: every answer is no." in notes(found.model_copy(update={"variants": [found.variants[0], blind]}))


def test_rows_say_what_was_told_apart() -> None:
    found = comparison([(1.0, None, 9), (0.25, None, 9), (1.0, None, 9)], metric="accuracy")
    rows = cell_rows(found, found.cells[0])
    assert [row["Speed-up"] for row in rows] == ["1", "4.00× [4.00, 4.00]", NOT_SIGNIFICANT]
    assert [row["Rows/s"] for row in rows] == ["4.00", "16.0", "4.00"]
    assert [row["ms"] for row in rows] == ["1000", "250", "1000"]
    assert any("Speed-up: over m0, torch" in note for note in notes(found))


def test_notes_tell_of_noise_and_of_too_few_rounds() -> None:
    found = comparison([(1.0, None, 9), (0.25, None, 9)])
    noisy = found.cells[0].timings[1].model_copy(update={"noisy": 3, "speedup": speedup([1.0] * 2, [2.0] * 2)})
    cell = found.cells[0].model_copy(update={"timings": [found.cells[0].timings[0], noisy]})
    said = notes(found.model_copy(update={"cells": [cell]}))
    assert any("during 3 of 14 samples" in note for note in said)
    assert any("6 rounds or more" in note for note in said)
    assert not any("6 rounds or more" in note or "samples" in note for note in notes(found))


def test_labels_are_the_shortest_ends_that_differ() -> None:
    paths = [Path("/runs/a/stages/dense"), Path("/runs/b/stages/dense"), Path("/x/dense.onnx")]
    assert labels(paths) == ["a/stages/dense", "b/stages/dense", "dense.onnx"]
    assert labels([Path("/m/one"), Path("/m/two")]) == ["one", "two"]
    assert labels([Path("/m/one"), Path("/m/one")]) == ["one (1)", "one (2)"]


def test_what_helpers_work_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/stat": "cpu  100 20 30 9999 999 5 6 7 50 0\n",
        "/proc/7/stat": "7 (a (b) c) S 1 7 7 0 -1 4 1 2 3 4 40 2 5 6 20 0 1",
        "/proc/8/stat": "8 (python) S 1 7 7 0 -1 4 1 2 3 4 10 0 5 6 20 0 1",
    }
    monkeypatch.setattr(Path, "read_text", lambda self, **_: files[str(self)])
    monkeypatch.setattr("os.times", lambda: (0.0,) * 5)
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    assert Clock().foreign() == pytest.approx(1.68)
    assert Clock([7, 8]).foreign() == pytest.approx(1.68 - 0.42 - 0.10)


def test_without_proc_all_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, **_: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert Clock().foreign() == 0


def test_throughput() -> None:
    one = Timing(median=0.5, low=0.4, high=0.6, samples=[0.5], noisy=0)
    assert Cell(batch=32, length=8, threads=2, timings=[one]).throughput(one) == 64
