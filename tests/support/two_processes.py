"""Two processes of one training, which all tests of one pytest worker share."""

import json
import os
import select
import socket
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.support.fresh import server

SERVER = "tests.support.ddp_server"
PATIENCE = 240  # seconds that one piece of work may take
RANKS = (0, 1)


class Pair:
    """Told what to do through pipes. When this process ends, however it does, the pipes close and the two end too."""

    def __init__(self, *, torchrun: bool = False) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="two-processes-"))
        for name in (f"{way}{rank}" for way in ("asked", "told") for rank in RANKS):
            os.mkfifo(self.place / name)
        # Opened for both ways, an end without its other end yet does not wait for it.
        self.asked = [os.fdopen(os.open(self.place / f"asked{r}", os.O_RDWR), "r+b", buffering=0) for r in RANKS]
        self.told = [os.fdopen(os.open(self.place / f"told{r}", os.O_RDWR), "r+b", buffering=0) for r in RANKS]
        port = free_port()
        self.children = [self._torchrun()] if torchrun else [self._fork(rank, port) for rank in RANKS]

    def _torchrun(self) -> int:
        """Launching that way takes ten seconds more, and sets the same variables."""
        launch = "import sys; sys.argv[1:] = {!r}; from torch.distributed.run import main; main()"
        options = ["--nproc-per-node", "2", "--standalone", "-m", SERVER, str(self.place)]
        return server().start(self.place / "log", code=launch.format(options), arguments=[])

    def _fork(self, rank: int, port: int) -> int:
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        log = self.place / f"log{rank}"
        return server().start(log, module=SERVER, arguments=[str(self.place)], variables=shared | own)

    def run(self, module: str, given: Any) -> None:
        """Calls ``main(given)`` of the module on both."""
        for pipe in self.asked:
            pipe.write(json.dumps([module, given]).encode() + b"\n")
        waiting, end = set(RANKS), time.monotonic() + PATIENCE
        while waiting:
            ready, _, _ = select.select([self.told[rank] for rank in waiting], [], [], 1.0)
            for rank in [rank for rank in waiting if self.told[rank] in ready]:
                trouble = json.loads(self.told[rank].readline())
                if trouble:
                    self._give_up(trouble)
                waiting.remove(rank)
            if waiting and (any(map(server().ended, self.children)) or time.monotonic() > end):
                logs = [path.read_text()[-3000:] for path in self.place.glob("log*/stderr")]
                self._give_up("\n".join([f"no answer of {sorted(waiting)}:", *logs]))

    def _give_up(self, trouble: str) -> None:
        """One of them may wait for the other for ever, so that the next test gets a new pair."""
        for child in self.children:
            server().kill(child)
        pair.cache_clear()
        raise AssertionError(trouble)

    def close(self) -> None:
        for pipe in (*self.asked, *self.told):
            pipe.close()
        for child in self.children:
            server().wait(child)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@cache
def pair() -> Pair:
    return Pair()


def on_two_processes(
    out: Path, recipe: dict[str, Any], *, on: Pair | None = None, **options: Any
) -> list[dict[str, torch.Tensor]]:
    """The weights with which each ends a training."""
    (on or pair()).run("tests.support.ddp_training", {"out": str(out), "recipe": recipe, **options})
    assert json.loads((out / "rank0.json").read_text())["processes"] == 2
    return [load_file(out / f"rank{rank}.safetensors") for rank in RANKS]
