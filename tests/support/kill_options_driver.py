"""Kills runs with SIGKILL at random moments, again and again, and prints what came of each as a JSON line.

Called by ``test_kill_options.py`` as ``python -m tests.support.kill_options_driver SPEC.json``; spec: out folder, seed,
kills per recipe, processes, recipes by name, and the name of the run that is left beside the out folder for others to
read. One process imports everything once and forks the others.
"""

import gc
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.support.kill_driver import in_child
from trainflat.commands.run import run
from trainflat.core.files import WORKPLACES, verify
from trainflat.records.run import Record

_IN_ONE_FOLDER = 3  # kills before the run is let end


def train(recipe: dict[str, Any], out: Path, processes: int, killed_after: float | None = None) -> bool:
    """Runs the recipe in children; True where the kill struck before it had ended."""
    if processes == 1:
        status = in_child(lambda: run(recipe, out=out), killed_after=killed_after)
        return _struck([status])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            gc.freeze()
            os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(processes))
            code = 3
            try:
                run(recipe, out=out)
                if torch.distributed.is_initialized():  # not where the run was complete already
                    torch.distributed.barrier()
                code = 0
            except BaseException as error:
                print(json.dumps({"fault": f"{type(error).__name__}: {error}"}), flush=True)  # noqa: T201
            os._exit(code)
        children.append(child)
    if killed_after is not None:
        time.sleep(killed_after)
        for child in children:
            os.kill(child, signal.SIGKILL)
    return _struck([os.waitpid(child, 0)[1] for child in children])


def _struck(statuses: list[int]) -> bool:
    if any(os.WIFEXITED(status) and os.WEXITSTATUS(status) for status in statuses):
        raise SystemExit(f"a run ended badly: {statuses}")
    return any(map(os.WIFSIGNALED, statuses))


def digest(out: Path) -> str:
    """Of a run that has ended, whose stages are whole and which left nothing else."""
    [folder] = out.iterdir()
    for stage in (folder / "stages").iterdir():
        verify(stage)
    litter = [*folder.rglob(WORKPLACES), *folder.glob("work")]
    assert not litter, litter
    return Record.load(folder).digest


def main() -> None:
    """One line per recipe: how often it was killed, and the digests of the runs that went on, and of the whole one."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    draw, out, processes = random.Random(spec["seed"]), Path(spec["out"]), spec["processes"]
    for number, (name, recipe) in enumerate(spec["recipes"].items()):
        started = time.perf_counter()
        train(recipe, out / f"{number}-whole", processes)
        lasted, struck, found, turn = time.perf_counter() - started, 0, [], 0
        while struck < spec["kills"]:
            place, left = out / f"{number}-{turn}", min(_IN_ONE_FOLDER, spec["kills"] - struck)
            while left and train(recipe, place, processes, draw.uniform(0.1, 0.95) * lasted):
                struck, left = struck + 1, left - 1
            train(recipe, place, processes)
            found.append(digest(place))
            turn += 1
            if turn > 5 * spec["kills"]:
                raise SystemExit(f"{name}: runs end before they can be killed")
        line = {"name": name, "struck": struck, "whole": digest(out / f"{number}-whole"), "found": found}
        print(json.dumps(line), flush=True)  # noqa: T201
        if name == spec["kept"]:
            [folder] = (out / f"{number}-whole").iterdir()
            folder.rename(out.parent / name)


if __name__ == "__main__":
    main()
