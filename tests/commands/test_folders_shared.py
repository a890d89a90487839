"""Several processes write into one place at the same time, and some of them are killed."""

import fcntl
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer

from trainflat.cli import main as cli
from trainflat.commands import run_folder
from trainflat.commands.run_folder import CLAIM, LOCK, opened
from trainflat.core.errors import InputError
from trainflat.core.files import WORKPLACES, atomic, write_json
from trainflat.export.base import new_folder
from trainflat.recipe import load_recipe
from trainflat.sharpness.store import Store

FORK = multiprocessing.get_context("fork")
SENTENCES = {"name": "files", "train_file": "rows.csv", "text": "text", "label": "label"}


class Rows:
    """As much of a task as a folder asks for."""

    fingerprints: ClassVar[dict[str, Any]] = {}


def together(work: Callable[[int], object], count: int) -> list[int]:
    """The exit codes of so many processes that begin to work at one moment."""
    start = FORK.Barrier(count)

    def begin(number: int) -> None:
        start.wait()
        work(number)

    processes = [FORK.Process(target=begin, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode or 0 for process in processes]


def killed_while(work: Callable[[], object], reached: Path) -> None:
    """Runs it in a process that is killed when it has made the file."""
    process = FORK.Process(target=work)
    process.start()
    while not list(reached.parent.glob(reached.name)):
        assert process.exitcode is None
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def test_writers_of_one_file_leave_each_other_s_temporary_files_alone(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(100):
            write_json(tmp_path / "value.json", [number, turn])

    assert together(write, 4) == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_processes_share_one_store_of_losses(tmp_path: Path) -> None:
    def measure(number: int) -> None:
        for turn in range(60):
            Store(tmp_path / "store.json", "work")[f"{number}-{turn}"] = 0.5

    assert together(measure, 3) == [0] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def hang_in_a_file(place: Path) -> None:
    with atomic(place / "old.json") as temporary:
        temporary.write_text("half")
        (place / "reached").touch()
        time.sleep(60)


def hang_in_a_folder(place: Path) -> None:
    with new_folder(place / "old") as temporary:
        (temporary / "model.safetensors").write_text("half")
        (place / "reached").touch()
        time.sleep(60)


@pytest.mark.parametrize("hang", [hang_in_a_file, hang_in_a_folder])
def test_the_next_call_deletes_what_a_killed_one_left_and_nothing_of_a_living_one(
    hang: Callable[[Path], None], tmp_path: Path
) -> None:
    killed_while(lambda: hang(tmp_path), tmp_path / "reached")
    assert list(tmp_path.glob(WORKPLACES))
    with atomic(tmp_path / "living.json") as mine:
        mine.write_text("mine")
        write_json(tmp_path / "new.json", 1)
        assert list(tmp_path.glob(WORKPLACES)) == [mine.parent]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living.json", "new.json", "reached"]


def test_only_one_process_works_in_a_folder_and_a_storm_of_refused_ones_leaves_it_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call is refused after it has claimed the folder, as one is whose model cannot be loaded, and withdraws."""
    recipe = load_recipe({"task": SENTENCES, "model": "model"})
    folder, inside = tmp_path / "runs" / recipe.folder_name, tmp_path / "inside"
    lock = fcntl.flock

    def late(file: Any, how: int) -> None:
        time.sleep(0.001)  # between opening and locking: the time in which another call may withdraw
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)

    def start(number: int) -> None:
        for _ in range(100):
            try:
                with opened(folder, recipe, Rows()):  # type: ignore[arg-type]
                    with inside.open("x"):  # fails where another process is inside
                        pass
                    time.sleep(0.001)
                    assert (folder / LOCK).exists()
                    inside.unlink()
                    raise InputError("refused")
            except InputError as error:
                assert "refused" in str(error) or "another process" in str(error), error

    assert together(start, 4) == [0] * 4
    with opened(folder, recipe, Rows()) as record:  # type: ignore[arg-type]
        assert record is None
    assert json.loads((folder / CLAIM).read_text())["recipe"] == recipe.hash


@pytest.mark.parametrize("point", ["_remove_empty", "Path.unlink"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_call_killed_while_it_takes_back_its_folder_leaves_it_usable(point: str, n: int, tmp_path: Path) -> None:
    from tests.support.kill_driver import kill_at

    recipe = load_recipe({"task": SENTENCES, "model": "model"})
    folder = tmp_path / recipe.folder_name

    def refused() -> None:
        kill_at(f"{run_folder.__name__}:{point}", n)
        with opened(folder, recipe, Rows()):  # type: ignore[arg-type]
            (folder / "work" / "dense").mkdir(parents=True)
            raise InputError("refused")

    process = FORK.Process(target=refused)
    process.start()
    process.join()
    assert process.exitcode
    with opened(folder, recipe, Rows()) as record:  # type: ignore[arg-type]
        assert record is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_command_that_is_told_to_end_deletes_what_is_half_written_at_once(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(lambda: hang_in_a_folder(tmp_path))
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["trainflat"])

    def main() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores it
        cli.main()

    process = FORK.Process(target=main)
    process.start()
    while not (tmp_path / "reached").exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == code
    assert [path.name for path in tmp_path.iterdir()] == ["reached"]
