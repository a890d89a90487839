"""Tables of latencies, with a timer that counts parameters, and budgets of time."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.marks import quick
from tests.support.structured import NAMES, questions, random_model, rows
from trainflat.core.errors import DamagedFile, InputError
from trainflat.pruning.structured import Latency, latency_table, measure_table, prune_structure, shrink
from trainflat.pruning.structured.latency import Call
from trainflat.pruning.structured.sub_layers import sub_layers


def by_size(calls: Mapping[str, Call]) -> dict[str, float]:
    """As if each parameter took a millisecond; runs each call, so that one that cannot be run is noticed."""
    for call in calls.values():
        call()
    return {name: size(call.module) for name, call in calls.items()}


def size(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1000


@pytest.mark.parametrize("family", NAMES)
def test_predicted_times_are_those_of_the_shrunk_model(family: str) -> None:
    """Sizes add up, so that the prices are exact and the first choice holds."""
    model, batch = random_model(family), questions(rows(family))
    table = measure_table(model, 2, 5, timer=by_size)
    budget = Latency(table, speedup=1.5, timer=by_size)
    pruned = prune_structure(model, [batch], budget, score="wanda", repair="none", shape="ragged")
    small, prices = shrink(pruned.model, pruned.kept), budget.prices(model, sub_layers(model))
    assert pruned.dense == pytest.approx(size(model))
    assert prices.spent([note.kept for note in pruned.notes]) == pytest.approx(size(small))
    assert pruned.cost == pytest.approx(size(small)) and pruned.cost <= table.dense / 1.5 + 1e-9


WRONG = [*product((0.0, 0.05, 0.2), (0.6, 1.0, 1.4), (1.2, 1.5))]  # fixed, power, speed-up
ENDS = [(0.0, 1.0, 1.5), (0.0, 0.6, 1.2), (0.0, 1.4, 1.5), (0.2, 0.6, 1.5), (0.2, 1.4, 1.2)]


@pytest.mark.parametrize("case", quick(WRONG, *ENDS), ids=str)
def test_a_time_is_met_within_ten_percent_though_the_table_is_wrong(case: tuple[float, float, float]) -> None:
    """A whole model takes fixed + (1 - fixed) * share ^ power of the dense one's time, unknown to the table."""
    fixed, power, speedup = case
    model = random_model("Bert", intermediate_size=448)
    table = measure_table(model, 2, 5, timer=by_size)

    def whole(calls: Mapping[str, Call]) -> dict[str, float]:
        share = {name: size(call.module) / size(model) for name, call in calls.items()}
        return {name: fixed + (1 - fixed) * x**power for name, x in share.items()}

    budget = Latency(table, speedup=speedup, timer=whole)
    pruned = prune_structure(model, [rows("Bert")], budget, score="magnitude", repair="none", shape="ragged")
    small = shrink(model, pruned.kept)
    found = whole({"small": Call(small, (), {})})["small"]
    assert 1 / 1.1 <= found * speedup <= 1.1
    assert pruned.cost == pytest.approx(table.dense * found)


@pytest.mark.parametrize("seed", quick(range(6), 0))
def test_a_time_is_met_though_single_measurements_are_off(seed: int) -> None:
    """By up to a fifth: a later try then lies between what was too fast and what was too slow, and is not empty."""
    model, draw = random_model("Bert", intermediate_size=448), np.random.default_rng(seed)
    table = measure_table(model, 2, 5, timer=by_size)

    def noisy(calls: Mapping[str, Call]) -> dict[str, float]:
        return {name: size(call.module) * draw.uniform(0.8, 1.2) for name, call in calls.items()}

    budget = Latency(table, speedup=1.5, timer=noisy)
    pruned = prune_structure(model, [rows("Bert")], budget, score="magnitude", repair="none", shape="ragged")
    assert 0.6 <= size(shrink(model, pruned.kept)) / size(model) * 1.5 <= 1.5


def test_a_time_that_no_model_has_says_what_was_reached() -> None:
    model = random_model("Bert")
    table = measure_table(model, 2, 5, timer=by_size)
    budget = Latency(table, speedup=1.5, timer=lambda calls: dict.fromkeys(calls, 1.0))
    with pytest.raises(InputError, match=r"was not reached: the fastest of 6 models took [\d.e+]+ ms, the dense one"):
        prune_structure(model, [rows("Bert")], budget, score="magnitude", repair="none")


def test_times_between_widths_are_interpolated() -> None:
    model = random_model("Bert", intermediate_size=448)
    subs = [sub for sub in sub_layers(model) if sub.kind == "feed-forward"]
    table = measure_table(model, 1, 4, timer=by_size)
    [widths] = [found for kind, found in table.seconds.items() if "feed-forward" in kind]
    assert sorted(widths) == [0, 1, *range(64, 449, 64)]
    times = table.seconds_by_width(model, subs[0])
    assert times[0] == 0
    assert times == pytest.approx([k * 17 / 1000 for k in range(449)])  # 8 weights each way, and a bias


def test_a_file_is_read_where_it_fits_and_measured_anew_where_not(tmp_path: Path) -> None:
    model, path = random_model("Bert"), tmp_path / "latency.json"
    taken = []

    def timer(calls: Mapping[str, Call]) -> dict[str, float]:
        taken.append(len(calls))
        return by_size(calls)

    first = latency_table(path, model, 2, 5, timer=timer)
    assert latency_table(path, model, 2, 5, timer=timer) == first
    assert len(taken) == 1
    latency_table(path, model, 2, 6, timer=timer)  # another length
    assert len(taken) == 2
    stored = json.loads(path.read_text())
    stored["key"]["versions"] = "torch 1.0"
    path.write_text(json.dumps(stored))
    assert latency_table(path, model, 2, 6, timer=timer).key["versions"] != "torch 1.0"
    assert len(taken) == 3
    with pytest.raises(InputError, match="at least 1 row of 1 position, got 0 of 5"):
        latency_table(path, model, 0, 5, timer=timer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"key": {}, "dense": -1.0, "seconds": {}}',
        '{"key": {}, "dense": NaN, "seconds": {}}',
        '{"key": {}, "dense": 1.0, "seconds": {"attention": {"one": 2.0}}}',
        '{"key": {}, "dense": 1.0, "seconds": {"attention": {"1": "soon"}}}',
        '{"key": 3, "dense": 1.0}',
    ],
)
def test_a_file_that_is_no_table_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match=r"latency\.json"):
        latency_table(path, random_model("Bert"), 2, 5, timer=by_size)
    assert path.read_text() == text


def test_a_table_of_another_model_or_without_a_width_is_refused() -> None:
    table = measure_table(random_model("Bert"), 2, 5, timer=by_size)
    wider = random_model("Bert", intermediate_size=20)
    with pytest.raises(InputError, match=r"no times of feed-forward 0 \(feed-forward 20 x 1\): it is another model's"):
        prune_structure(wider, [rows("Bert")], Latency(table, speedup=2))
    del table.seconds["attention 2 x 4"][1]
    with pytest.raises(InputError, match="no times of attention 0"):
        prune_structure(random_model("Bert"), [rows("Bert")], Latency(table, speedup=2))


def test_a_budget_of_time_is_one_number_and_within_reach() -> None:
    model = random_model("Bert")
    table = measure_table(model, 2, 5, timer=by_size)
    with pytest.raises(InputError, match=r"milliseconds or a speedup\. Give one"):
        Latency(table)
    with pytest.raises(InputError, match=r"a budget of 1 ms is out of reach: .* takes [\d.]+(e\+\d+)? ms"):
        prune_structure(model, [rows("Bert")], Latency(table, milliseconds=1))


def test_real_times_are_taken() -> None:
    table = measure_table(random_model("Bert"), 1, 4)
    assert table.dense > 0
    assert set(table.seconds) == {"attention 2 x 4", "feed-forward 12 x 1"}
    assert all(seconds < table.dense for found in table.seconds.values() for seconds in found.values())


def test_times_of_a_busy_machine_never_fall_with_more_units() -> None:
    model = random_model("Bert", intermediate_size=448)
    [sub, *_] = [sub for sub in sub_layers(model) if sub.kind == "feed-forward"]
    table = measure_table(model, 1, 4, timer=by_size)
    [(kind, found)] = [item for item in table.seconds.items() if "feed-forward" in item[0]]
    noisy = {width: (0.0, 3e-3, -1e-3, 1e-3)[number % 4] for number, width in enumerate(sorted(found))}
    times = replace(table, seconds={kind: noisy}).seconds_by_width(model, sub)
    assert times[0] == 0 and (np.diff(times) >= 0).all() and times[-1] == 3e-3
