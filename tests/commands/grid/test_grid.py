"""Whole grids: the digests of runs made one by one, whatever is killed on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.grids import InProcess, tickets, tiny_recipe
from tests.support.processes import workers_of
from trainflat.cli import main as cli
from trainflat.commands.grid import grid as grids
from trainflat.commands.grid.grid import grid
from trainflat.commands.grid.plan import plan_grid
from trainflat.commands.run import run
from trainflat.core.errors import InputError


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    executor = InProcess()
    monkeypatch.setattr(grids, "Local", lambda slots, threads: executor)
    monkeypatch.setattr(grids, "_SECONDS", 0.0)
    return executor


def test_a_plan_counts_what_is_shared_once(tmp_path: Path) -> None:
    plan = plan_grid(tickets(tmp_path), out=tmp_path / "runs")
    # Each finder trains a dense model and one round; pruning at once takes the former, and each ticket is trained.
    assert (len(plan.rows), plan.trainings, len(plan.trained)) == (6, 8, 6)
    assert plan.passes == 5 + 5 + 10 + 10 + 5 + 5


def test_runs_of_a_grid_have_the_digests_of_runs_made_one_by_one(tmp_path: Path, in_process: InProcess) -> None:
    result = grid(tickets(tmp_path), out=tmp_path / "runs")
    assert result.failed == {}
    assert [run(one.recipe, out=tmp_path / "alone").digest for one in result.records] == [
        one.digest for one in result.records
    ]
    assert len(in_process.started) == 6


def test_a_complete_grid_starts_nothing(tmp_path: Path, in_process: InProcess) -> None:
    both = tiny_recipe(tmp_path), {"seed": [0, 1]}
    first = grid({"recipe": both[0], "axes": both[1]}, out=tmp_path / "runs")
    in_process.started.clear()
    again = grid({"recipe": both[0], "axes": both[1]}, out=tmp_path / "runs")
    assert in_process.started == []
    assert [one.digest for one in again.records] == [one.digest for one in first.records]


def test_a_run_that_fails_is_shown_with_its_line_and_the_others_are_done(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"recipe": recipe, "axes": {"seed": [0, 1]}}))
    blocked = plan_grid(path, out=tmp_path / "runs").rows[0][1].folder
    real = InProcess.start

    def start(self: InProcess, name: str, job: Path, log: Path) -> None:
        if name == blocked.name:
            blocked.mkdir()
            (blocked / "mine.txt").write_text("a stranger's")
        real(self, name, job, log)

    monkeypatch.setattr(InProcess, "start", start)
    monkeypatch.setattr(sys, "argv", ["trainflat", "grid", str(path), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr().out
    assert caught.value.code == 1
    assert f"failed: {blocked.name}: " in said
    assert "holds files that no run of this recipe wrote" in said
    assert "1 run failed." in said
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 1


def test_a_dry_run_shows_runs_and_price_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(tickets(tmp_path)))
    out = tmp_path / "runs"
    monkeypatch.setattr(sys, "argv", ["trainflat", "grid", str(path), "--out", str(out), "--dry-run"])
    cli.main()
    said = capsys.readouterr().out
    assert "tickets: 6 runs; 6 trainings (2 more are shared), 40 passes" in said
    assert "1 thread" in said or "threads" in said
    assert not out.exists()


def test_a_run_that_cannot_be_run_is_refused_before_any_starts(tmp_path: Path) -> None:
    bad = {"recipe": tiny_recipe(tmp_path), "axes": {"model": [str(tmp_path / "model"), "no/where-at-all"]}}
    with pytest.raises(InputError, match="no/where-at-all"):
        plan_grid(bad, out=tmp_path / "runs")


def started(path: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainflat", "grid", str(path), "--out", str(out), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_killed_workers_and_drivers_leave_the_same_digests_and_train_nothing_twice(tmp_path: Path) -> None:
    made: dict[str, Any] = tickets(tmp_path, seeds=2)
    path, out, chance = tmp_path / "grid.yaml", tmp_path / "runs", random.Random(3)
    path.write_text(yaml.safe_dump(made))
    driver = started(path, out)
    for _ in range(20):
        time.sleep(chance.uniform(0.5, 6.0))
        alive = workers_of(out)
        with suppress(ProcessLookupError):
            os.kill(chance.choice(alive) if alive and chance.random() < 0.6 else driver.pid, signal.SIGKILL)
        if driver.poll() is not None:
            driver = started(path, out)
    driver.kill()
    driver.wait()
    result = grid(path, out=out, workers=2)
    assert result.failed == {}
    plan = plan_grid(path, out=out)
    assert len(result.records) == len(plan.rows) == 12
    seconds: dict[str, set[float]] = {}
    for record, (_, _, keys) in zip(result.records, plan.rows, strict=True):
        for stage in record.stages:
            if stage.name in keys:
                seconds.setdefault(keys[stage.name], set()).add(stage.timing.train_seconds)
    assert [len(found) for found in seconds.values()] == [1] * len(seconds)  # one training each, taken by the others
    for one in result.records:
        assert run(one.recipe, out=tmp_path / "alone").digest == one.digest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_grids_on_one_folder_end_with_the_same_runs(tmp_path: Path) -> None:
    path, out = tmp_path / "grid.yaml", tmp_path / "runs"
    path.write_text(yaml.safe_dump(tickets(tmp_path)))
    both = [started(path, out), started(path, out)]
    assert [driver.wait() for driver in both] == [0, 0]
    found = grid(path, out=out)
    assert len(found.records) == 6
    for one in found.records:
        assert run(one.recipe, out=tmp_path / "alone").digest == one.digest
