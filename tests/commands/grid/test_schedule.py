"""Which run starts when: what it needs is done, no stage is trained twice, and no failure stops the others."""

import fcntl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.grids import Played
from trainflat.commands.grid import schedule
from trainflat.commands.grid.cells import Cell
from trainflat.commands.grid.schedule import Entry, Schedule
from trainflat.commands.grid.status import Status, status_file
from trainflat.commands.grid.worker import BUSY
from trainflat.core.files import write_json
from trainflat.recipe import load_recipe
from trainflat.records.run import Record

RECIPE = load_recipe({"task": "stdlib-docs", "model": "minilm"})


class Bench:
    """Holds a schedule whose runs a test ends; a run that is done has sealed all of its stages."""

    def __init__(self, folder: Path, runs: dict[str, dict[str, Any]], slots: int = 2) -> None:
        self.folder, self.trained = folder, Counter[str]()
        self.executor = Played(slots, self.seal)
        self.entries = {
            name: Entry(
                Cell("runs", {"name": name}, RECIPE, frozenset(run.get("needs", ()))),
                folder / name,
                {key: key for key in run.get("keys", ())},
            )
            for name, run in runs.items()
        }
        self.schedule = Schedule(self.entries, self.executor, None)

    def seal(self, name: str) -> None:
        for key in self.entries[name].keys:
            stage = self.folder / name / "stages" / key
            stage.mkdir(parents=True)
            (stage / "manifest.json").write_text("{}")
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "record.json").write_text("{}")

    def step(self) -> list[str]:
        self.schedule.step()
        return sorted(self.executor.running)

    def states(self) -> dict[str, str]:
        return {name: entry.state for name, entry in self.entries.items()}


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every record file for a record."""
    monkeypatch.setattr(Record, "load", lambda _: None)


def test_as_many_start_as_there_are_slots_in_the_order_of_the_grid(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {}, "b": {}, "c": {}})
    assert bench.step() == ["a", "b"]
    bench.executor.end("a")
    assert bench.step() == ["b", "c"]


def test_a_run_waits_for_those_it_needs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {"needs": ["b"]}, "b": {}})
    assert bench.step() == ["b"]
    bench.executor.end("b")
    assert bench.step() == ["a"]


def test_a_stage_is_trained_by_one_run_and_then_there_for_all(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {name: {"keys": ["dense"]} for name in "abc"}, slots=3)
    assert bench.step() == ["a"]
    bench.executor.end("a")
    assert bench.step() == ["b", "c"]


def test_the_next_one_trains_a_stage_whose_run_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {"keys": ["dense"]}, "b": {"keys": ["dense"]}})
    bench.step()
    write_json(status_file(tmp_path / "a"), Status(failed="the loss is not a number").model_dump())
    bench.executor.end("a", 1)
    assert bench.step() == ["b"]
    assert bench.entries["a"].reason == "the loss is not a number"


def test_a_failure_fails_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {}, "b": {"needs": ["a"]}, "c": {"needs": ["b"]}, "d": {}})
    bench.step()
    bench.executor.end("a", 2)
    bench.executor.end("d")
    while bench.schedule.open:
        bench.step()
    assert bench.states() == {"a": "failed", "b": "failed", "c": "failed", "d": "done"}
    assert bench.entries["c"].reason == "it needs b, which failed."
    assert "code 2. See" in bench.entries["a"].reason


def test_a_killed_run_is_started_again_and_given_up_after_the_fifth_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {}})
    for _ in range(schedule._TRIES):
        assert bench.step() == ["a"]
        bench.executor.end("a", -9)
    assert bench.step() == []
    assert "killed 5 times" in bench.entries["a"].reason


def test_a_run_that_ends_without_a_record_has_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {}})
    bench.executor.done = lambda name: None
    bench.step()
    bench.executor.end("a", 0)
    assert bench.step() == []
    assert bench.states() == {"a": "failed"}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_run_that_another_process_does_is_waited_for_and_holds_its_stages(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {"keys": ["dense"]}, "b": {"keys": ["dense"]}, "c": {}})
    with locked(tmp_path / "a"):
        assert bench.step() == ["c"]
        assert bench.states() == {"a": "elsewhere", "b": "waiting", "c": "running"}
        bench.seal("a")
    assert bench.step() == ["b", "c"]
    assert bench.entries["a"].state == "done"


def test_a_run_that_was_busy_when_its_worker_came_is_looked_at_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"a": {}})
    bench.step()
    bench.executor.end("a", BUSY)
    assert bench.step() == ["a"]


def test_complete_runs_are_not_started(tmp_path: Path) -> None:
    first = Bench(tmp_path, {"a": {}, "b": {}})
    first.seal("a")
    assert Bench(tmp_path, {"a": {}, "b": {}}).step() == ["b"]


@st.composite
def grids(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    names = [f"r{number}" for number in range(draw(st.integers(1, 7)))]
    return {
        name: {
            "needs": draw(st.lists(st.sampled_from(names[:number]), max_size=2)) if number else [],
            "keys": draw(st.lists(st.sampled_from("uvwx"), max_size=3, unique=True)),
        }
        for number, name in enumerate(names)
    }


@settings(deadline=None, max_examples=60)
@given(runs=grids(), slots=st.integers(1, 4), chance=st.randoms(use_true_random=False))
def test_every_run_ends_and_every_stage_is_trained_once(
    tmp_path_factory: pytest.TempPathFactory, runs: dict[str, dict[str, Any]], slots: int, chance: Any
) -> None:
    bench = Bench(tmp_path_factory.mktemp("grid"), runs, slots)
    sealed: set[str] = set()
    trained, running = Counter[str](), set[str]()
    while bench.schedule.open:
        now = set(bench.step())
        for name in now - running:
            trained.update(set(bench.entries[name].keys) - sealed)
        running = now
        assert len(now) <= slots
        if now:
            ended = chance.choice(sorted(now))
            if chance.random() < 0.8:
                bench.executor.end(ended)
                sealed |= set(bench.entries[ended].keys)
                running = running - {ended}
    assert set(bench.states().values()) == {"done"}
    assert set(trained.values()) <= {1}
