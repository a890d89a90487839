"""Runs the workers of a grid on a Ray cluster, which places them by CPU, GPU and memory and starts lost ones again.

All nodes see the folder of the runs under the same path, and have trainflat installed. What a worker did lies in its
run's folder, so that nothing is lost with a node, with Ray's head or with the driver.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainflat.commands.grid.process import worked
from trainflat.core.errors import InputError

LOST = -1  # exit code of a worker that ended with its node
_TRIES = 3  # of Ray, for one worker
_SECONDS = 5.0  # to answer a first call


class Cluster:
    """Submits workers to Ray, and says which have ended.

    Args:
        address: Of a cluster, ``host:port``; ``auto`` is the one that runs on this machine.
        threads: Cores of a worker.
        memory: Bytes of a worker.
        most: Workers at a time; None lets the cluster's cores decide.

    Raises:
        InputError: Ray is not installed, or no cluster is there.
    """

    def __init__(self, address: str, threads: int, memory: int, most: int | None = None) -> None:
        self.ray, self.threads = _connected(address), threads
        resources = self.ray.cluster_resources()
        room = max(int(resources.get("CPU", 1) // threads), 1)
        self.slots = room if most is None else min(room, most)
        gpus = 1 if resources.get("GPU", 0) >= 1 else 0
        options = {"num_cpus": threads, "num_gpus": gpus, "memory": memory, "max_retries": _TRIES}
        self.remote = self.ray.remote(**options)(worked)
        self.running: dict[Any, str] = {}  # names by what Ray promised

    def start(self, name: str, job: Path, log: Path) -> None:
        """Submits a worker that writes its output to a log."""
        self.running[self.remote.remote(str(job), str(log), self.threads)] = name

    def ended(self) -> Mapping[str, int]:
        """Returns the exit codes of the workers that ended since the last call.

        Raises:
            InputError: the cluster does not answer any more.
        """
        if not self.running:
            return {}
        try:
            ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
            return {self.running.pop(one): self._code(one) for one in ready}
        except (self.ray.exceptions.RaySystemError, ConnectionError) as error:
            raise InputError(
                "the Ray cluster does not answer any more. Start it, and the same command goes on."
            ) from error

    def stop(self) -> None:
        """Asks Ray to end all workers."""
        with suppress(self.ray.exceptions.RayError, ConnectionError):  # it may be why we stop
            for one in self.running:
                self.ray.cancel(one, force=True)

    def _code(self, promised: Any) -> int:
        try:
            return int(self.ray.get(promised))
        except self.ray.exceptions.RayError:
            return LOST


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray needs Ray, which is not installed. pip install 'trainflat[ray]'.") from error
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {address}. Start one with `ray start --head`.") from error
    return ray


def _reach(address: str) -> None:
    """Raises OSError where nothing listens at ``host:port``, which Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
