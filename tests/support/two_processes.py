"""Two processes under torchrun, which all tests of one pytest worker share."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds that one piece of work may take
RANKS = (0, 1)


class Pair:
    """Told what to do through pipes. When this process ends, however it does, the pipes close and the two end too."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="two-processes-"))
        for name in (f"{way}{rank}" for way in ("asked", "told") for rank in RANKS):
            os.mkfifo(self.place / name)
        # Opened for both ways, an end without its other end yet does not wait for it.
        self.asked = [os.fdopen(os.open(self.place / f"asked{r}", os.O_RDWR), "r+b", buffering=0) for r in RANKS]
        self.told = [os.fdopen(os.open(self.place / f"told{r}", os.O_RDWR), "r+b", buffering=0) for r in RANKS]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--standalone", "--monitor-interval", "5"]
        quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        self.log = (self.place / "log").open("wb")
        self.process = subprocess.Popen(
            [*command, "-m", "tests.support.ddp_server", str(self.place)],
            cwd=ROOT,
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

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
            if waiting and (self.process.poll() is not None or time.monotonic() > end):
                self._give_up(f"no answer of {sorted(waiting)}: {(self.place / 'log').read_text()[-3000:]}")

    def _give_up(self, trouble: str) -> None:
        """One of them may wait for the other for ever, so that the next test gets a new pair."""
        self.process.kill()
        pair.cache_clear()
        raise AssertionError(trouble)


@cache
def pair() -> Pair:
    return Pair()


def on_two_processes(out: Path, recipe: dict[str, Any], **options: Any) -> list[dict[str, torch.Tensor]]:
    """The weights with which each ends a training."""
    pair().run("tests.support.ddp_training", {"out": str(out), "recipe": recipe, **options})
    assert json.loads((out / "rank0.json").read_text())["processes"] == 2
    return [load_file(out / f"rank{rank}.safetensors") for rank in RANKS]
