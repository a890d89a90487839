"""Starts worker processes of the benchmark, and talks to them."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.timing import Candidate

Rows = Mapping[str, NDArray[np.int64]]


class Remote:
    """Controls a process that holds one model; leaving the context ends it.

    Args:
        name: For messages.
        engine: In ``trainflat.engines.ENGINES``; torch for a folder.
        path: Of the folder or the file.
    """

    def __init__(self, name: str, engine: str, path: Path) -> None:
        self.name, self.engine, self.path = name, engine, path
        self.log = tempfile.TemporaryFile("w+", encoding="utf8", errors="replace")  # noqa: SIM115  # closed below
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainflat.commands.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            encoding="utf8",
        )

    def __enter__(self) -> "Remote":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing is worth waiting for: it may be amid a pass of minutes.
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.process.stdout.close()  # type: ignore[union-attr]
        self.log.close()

    def open(self, threads: int) -> None:
        """Loads the model, or loads it again for another number of threads.

        Raises:
            InputError: it cannot be read or run; so for all that follow.
        """
        self._ask("be opened", "open", engine=self.engine, path=str(self.path), threads=threads)

    def hold(self, rows: Rows) -> None:
        """Sends the batch on which `time` and `answer` then run."""
        what = f"take {' x '.join(map(str, rows['input_ids'].shape))} tokens"
        self._ask(what, "hold", tokens={name: each.tolist() for name, each in rows.items()})

    def time(self, calls: int) -> float:
        """Times ``calls`` passes, in seconds by the worker's clock."""
        return float(self._ask("run", "time", calls=calls))

    def answer(self) -> dict[str, NDArray[np.float32]]:
        """Returns the logits by name."""
        return {name: np.array(each, dtype=np.float32) for name, each in self._ask("answer", "answer").items()}

    def peak_bytes(self) -> int | None:
        """Returns the peak of the process's resident memory in bytes; None where there is no ``/proc``."""
        with suppress(FileNotFoundError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None

    def _ask(self, what: str, method: str, **arguments: Any) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps([method, arguments]) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        reply = json.loads(line) if line else {"failed": self._end()}
        if "done" in reply:
            return reply["done"]
        if "refused" in reply:
            raise InputError(f"{self.name}: {reply['refused']}")
        raise InputError(
            f"{self.name} cannot {what}: {reply['failed'].rstrip('.')}. Leave it out, or look at its file."
        )

    def _end(self) -> str:
        code = self.process.wait()
        if code < 0:
            return f"its process was ended by signal {-code}, as the system does where memory runs out"
        self.log.seek(0)
        return f"its process ended ({(self.log.read().strip().splitlines() or ['without a word'])[-1]})"


class Away(Candidate):
    """Times a candidate in its own process, by the clock there, without the communication."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(partial(remote.time, 1))
        self.remote = remote

    def take(self, calls: int, now: Callable[[], float]) -> float:
        del now
        return self.remote.time(calls)


class Answers(nn.Module):
    """Wraps a remote as a module, so that the timed process is also the one that is scored."""

    def __init__(self, remote: Remote) -> None:
        super().__init__()
        self.remote = remote

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        self.remote.hold({name: tensor.numpy() for name, tensor in batch.items()})
        return {name: torch.from_numpy(each) for name, each in self.remote.answer().items()}
