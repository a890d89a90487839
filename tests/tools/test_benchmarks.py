"""The arithmetic of the benchmarks, with a clock that the test turns."""

import argparse
import json
import os
from pathlib import Path

import pytest

from benchmarks import batching, memory
from benchmarks.harness import QUIET, RETAKES, Candidate, Clock, Sample, alternate, ratio, readable, spread
from benchmarks.result import Result


class FakeClock(Clock):
    """Time passes only in ``work``; ``noise`` says how many cores others use in each call of it, 0 when used up."""

    def __init__(self, *noise: float) -> None:
        self.time, self.others, self.noise, self.calls = 100.0, 50.0, list(noise), []

    def now(self):
        return self.time

    def foreign(self):
        return self.others

    def work(self, name, seconds):
        def run():
            self.calls.append(name)
            self.time += seconds
            self.others += seconds * (self.noise.pop(0) if self.noise else 0.0)

        return Candidate(run)


def silent(text):
    pass


def test_candidates_alternate_and_each_round_starts_with_another():
    clock = FakeClock()
    alternate({name: clock.work(name, 1.0) for name in "abc"}, 3, clock, silent)
    assert "".join(clock.calls) == "abc" + "abc" + "bca" + "cab"  # the first three warm up


def test_short_candidates_are_called_until_a_sample_is_long_enough():
    clock = FakeClock()
    (samples,) = alternate({"a": clock.work("a", 0.125)}, 2, clock, silent).values()
    assert clock.calls == ["a"] * (1 + 1 + 4 + 4)  # warming up, finding out, two samples of half a second
    assert [sample.seconds for sample in samples] == [0.125, 0.125]


def test_what_each_call_needs_anew_is_outside_the_time():
    clock = FakeClock()
    prepared = []

    def prepare():
        prepared.append(clock.time)
        clock.time += 10.0

    candidate = Candidate(clock.work("a", 0.1).run, prepare)
    (samples,) = alternate({"a": candidate}, 2, clock, silent).values()
    assert [sample.seconds for sample in samples] == pytest.approx([0.1, 0.1])
    assert len(prepared) == len(clock.calls) == 3


def test_noisy_samples_are_taken_again_until_one_is_quiet():
    clock = FakeClock(0.0, 0.9, 0.5, 0.1)  # the first is the warming up
    (samples,) = alternate({"a": clock.work("a", 1.0)}, 2, clock, silent).values()
    assert [sample.tries for sample in samples] == [3, 1]
    assert [sample.foreign for sample in samples] == pytest.approx([0.1, 0.0])
    assert not any(sample.noisy for sample in samples)


def test_a_sample_that_stays_noisy_is_the_quietest_try_and_says_so():
    clock = FakeClock(0.0, 0.9, 0.4, 0.7, 0.8)
    ((sample,),) = alternate({"a": clock.work("a", 1.0)}, 1, clock, silent).values()
    assert sample.tries == 1 + RETAKES
    assert sample.foreign == pytest.approx(0.4)
    assert sample.noisy


def test_retaking_ends_when_patience_does():
    clock = FakeClock(*[0.9] * 50)
    taken = alternate({"a": clock.work("a", 100.0)}, 5, clock, silent)  # 120 s of patience: two retakes
    assert [sample.tries for sample in taken["a"]] == [3, 1, 1, 1, 1]


def test_foreign_cpu_is_all_that_was_busy_or_stolen_less_our_own(monkeypatch):
    # user nice system idle iowait irq softirq steal guest guest_nice; guests are part of user
    stat = "cpu  100 20 30 9999 999 5 6 7 50 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: stat)
    monkeypatch.setattr(os, "times", lambda: (0.5, 0.25, 0.125, 0.125, 1234.0))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    assert Clock().foreign() == pytest.approx(1.68 - 1.0)


def test_foreign_cpu_can_be_read_here():
    clock = Clock()
    assert -0.05 < clock.foreign() - clock.foreign() < 0.05  # the time of a look; both counters tick in 10 ms


def test_median_and_quartiles():
    assert (spread([4.0, 1.0, 3.0, 2.0, 5.0]).low, spread([4.0, 1.0, 3.0, 2.0, 5.0]).high) == (2.0, 4.0)
    assert spread([7.0]) == spread([7.0, 7.0, 7.0])


def test_a_ratio_and_its_spread_are_over_rounds():
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert (found.value, found.low, found.high) == (2.0, 1.5, 2.5)


def test_a_slow_moment_that_both_sides_share_cancels_in_the_spread():
    found = ratio([2.0, 20.0, 2.0, 6.0], [1.0, 10.0, 1.0, 3.0])
    assert found.low == found.high == found.value == 2.0


@pytest.mark.parametrize(
    ("value", "text"), [(2.5e-5, "25 µs"), (0.184, "184 ms"), (1.534, "1.53 s"), (119.0, "119 s"), (726.0, "12.1 min")]
)
def test_durations_are_readable(value, text):
    assert readable(value) == text


@pytest.fixture
def result(tmp_path):
    found = Result("example", "How\n  it was measured.", argparse.Namespace(threads=1, out=tmp_path, repeats=3))
    quiet, noisy = Sample(2.0, 0.0), Sample(4.0, QUIET * 2, tries=4)
    found.add("rows", {"ours": [quiet, quiet, quiet], "peer": [noisy, noisy, noisy]})
    return found


def test_bounds_say_whether_they_were_kept(result):
    result.ratio("rows", "peer", "ours", at_least=2.0)
    result.ratio("rows", "peer", "ours", at_most=1.9)
    result.figure("extra memory", 6.0, "MiB", at_most=64)
    assert [bound.kept for bound in result.bounds] == [True, False, True]
    assert str(result.bounds[1]) == "MISSED rows: peer / ours: 2× ≤ 1.9×"


def test_the_file_holds_what_a_report_needs(result, capsys):
    result.ratio("rows", "peer", "ours", at_least=2.0)
    value = json.loads(result.finish().read_text(encoding="utf8"))
    assert value["what"] == "How it was measured."
    assert value["times"]["rows"]["peer"] | {"noisy": 3, "retaken": 9, "median": 4.0} == value["times"]["rows"]["peer"]
    assert value["ratios"]["rows: peer / ours"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert value["bounds"][0]["kept"] is True
    assert {"processor", "cores", "torch", "threads", "wait_policy"} <= value["machine"].keys()
    assert "3 of them noisy" in capsys.readouterr().out


def test_extra_memory_is_what_the_work_adds_at_its_peak():
    size = 64 * 2**20
    assert size * 0.9 < memory.measure(lambda: bytearray(b"x") * size) < size * 1.5
    assert memory.measure(lambda: None) < size * 0.1


def test_sampled_batches_stand_for_equal_shares_of_the_epoch():
    lengths = list(range(32 * 16 + 5))
    plan = batching.batches(lengths)
    assert len(plan) == 17
    chosen = batching.sampled(plan, lengths, 4)
    assert [max(batch) for batch in chosen] == [plan[n][-1] for n in (2, 6, 10, 14)]
    assert batching.padded_tokens(plan[:2], lengths) == 32 * 31 + 32 * 63
    rows = batching.collate([[5, 6, 7], [8]], 4)
    assert rows["input_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert rows["attention_mask"].sum(1).tolist() == [3, 1]
    assert [s.seconds for s in batching.per_epoch([Sample(8.0, 0.0)], 4, 100)] == [200.0]
