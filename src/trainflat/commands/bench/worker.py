"""Serves one model in a process of its own: commands in and answers out as JSON lines.

Each variant has a process of its own. Only so is its peak memory its own, with no library in it that it does not need:
for a model of MiniLM's size 137 MB by onnxruntime, 196 by OpenVINO and 468 by torch, where one process for all three
took 791. Nor do thread pools share a process then, and whoever runs out of memory does not take the others along. A
process that waits for its turn sleeps in a read.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from trainflat.core.errors import TrainflatError, one_line
from trainflat.engines import ENGINES, Engine


class Worker:
    """Answers requests, each a method by name."""

    engine: Engine | None = None

    def open(self, engine: str, path: str, threads: int) -> None:
        """Opens a model folder (by torch) or a file; what was open before is closed first."""
        self.engine = None
        self.engine = _kind(engine, Path(path)).open(Path(path), threads)

    def hold(self, tokens: dict[str, list[list[int]]]) -> None:
        """Keeps a batch; types of tokens are zeros where the batch has none."""
        assert self.engine is not None
        arrays = {name: np.array(rows, dtype=np.int64) for name, rows in tokens.items()}
        self.tokens = self.engine.taken({"token_type_ids": np.zeros_like(arrays["input_ids"]), **arrays})

    def time(self, calls: int) -> float:
        """Returns the seconds of so many forward passes over the batch, by this process' own clock."""
        assert self.engine is not None
        start = perf_counter()
        for _ in range(calls):
            self.engine.run(self.tokens)
        return perf_counter() - start

    def answer(self) -> dict[str, Any]:
        """Returns the logits of the batch by name."""
        assert self.engine is not None
        found = self.engine.run(self.tokens)
        return {name: each.tolist() for name, each in zip(self.engine.outputs, found, strict=True)}


def _kind(engine: str, path: Path) -> type[Engine]:
    if path.is_dir():
        from trainflat.commands.bench.model import TorchModel

        return TorchModel
    return ENGINES[engine]


def serve(requests: Iterable[str], answer: Callable[[str], object]) -> None:
    """Does what each line asks, ``[method, arguments]``, until there are no more lines."""
    worker = Worker()
    for line in requests:
        method, arguments = json.loads(line)
        reply: dict[str, Any]
        try:
            reply = {"done": getattr(worker, method)(**arguments)}
        except TrainflatError as error:
            reply = {"refused": str(error)}
        except Exception as error:  # libraries raise errors of any kind for a file that they cannot run
            reply = {"failed": f"{type(error).__name__}: {one_line(error, 200)}"}
        answer(json.dumps(reply) + "\n")


def main() -> None:
    """Serves standard input. Libraries that print do so on standard error: standard output is for answers."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, channel.write)


if __name__ == "__main__":
    main()
