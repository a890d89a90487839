"""Runs the workers of a grid on this machine, in as many processes as fit."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from trainflat.commands.grid.process import WORKER, quiet

_GRACE = 10.0  # seconds between asking a worker to end and killing it


class Local:
    """Starts processes, and says which have ended.

    Args:
        slots: Processes at a time.
        threads: Of each.
    """

    def __init__(self, slots: int, threads: int) -> None:
        self.slots, self.threads = slots, threads
        self.devices: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, job: Path, log: Path) -> None:
        """Starts a worker that writes its output to a log."""
        with log.open("ab") as file:
            self.running[name] = subprocess.Popen(
                [*WORKER, str(job)], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self._environment(name)
            )

    def ended(self) -> Mapping[str, int]:
        """Returns the exit codes of the workers that ended since the last call; negative for one that was killed."""
        codes = {name: code for name, process in self.running.items() if (code := process.poll()) is not None}
        for name in codes:
            del self.running[name]
            self.devices.pop(name, None)
        return codes

    def stop(self) -> None:
        """Ends all workers; their runs go on from their last checkpoint when they are started again."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            process.kill()

    def _environment(self, name: str) -> dict[str, str]:
        given = {**os.environ, **quiet(self.threads)}
        if torch.cuda.is_available():  # one device each, as long as there are enough
            free = [one for one in range(torch.cuda.device_count()) if one not in self.devices.values()]
            self.devices[name] = free[0] if free else 0
            given["CUDA_VISIBLE_DEVICES"] = str(self.devices[name])
        return given
