"""Starts the worker of one run as a process; imports nothing heavy, since the processes of a cluster do so anew."""

import os
import subprocess
import sys
from pathlib import Path

WORKER = (sys.executable, "-m", "trainflat.commands.grid.worker")


def quiet(threads: int) -> dict[str, str]:
    """Returns the environment of a worker: idle threads of several processes that spin slow each other four-fold."""
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


def worked(job: str, log: str, threads: int) -> int:
    """Does one run in a process of its own, waits for it and returns its exit code."""
    given = {**os.environ, **quiet(threads)}
    with Path(log).open("ab") as file:
        done = subprocess.run(
            [*WORKER, job], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=given, check=False
        )
    return done.returncode
