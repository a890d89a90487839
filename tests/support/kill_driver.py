"""Kills runs of the main job with SIGKILL at chosen moments, runs them again, and prints what came of it as JSON lines.

One process imports everything once and forks a child per run, so that ten kills cost seconds and not minutes. Called by
``test_kill.py`` as ``python -m tests.support.kill_driver SPEC.json``; spec: model, train file, out folder, optimizer,
points, maybe averaging and protocol. A point is ``[function, n]``: the child kills itself when that function is called
for the n-th time; or ``["after", seconds]``: the parent kills it then. A list of points strikes one run in turn, each
time after it was started again.
"""

import gc
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sklearn.metrics  # noqa: F401  # a run imports it where it scores

import trainflat
from trainflat.commands.run import run  # the imports that take time happen here, before any fork
from trainflat.records.run import Record

Point = tuple[str, float]


def recipe(spec: dict[str, Any]) -> dict[str, Any]:
    """Dropout, accumulation, evaluation inside epochs, early stopping, rewinding to a step: what a resume can lose."""
    return {
        "task": {"name": "files", "train_file": spec["train_file"], "text": "text", "label": "label"},
        "model": spec["model"],
        "training": {
            "epochs": 3,
            "batch_size": 8,
            "accumulate": 2,
            "max_length": 16,
            "optimizer": spec["optimizer"],
            "evaluate_every": 3,
            "log_every": 2,
            "patience": 3,
            "averaging": spec.get("averaging"),
            "distillation": spec.get("distillation"),
        },
        "protocol": spec.get("protocol", {"name": "iterative", "sparsities": [0.5, 0.8], "rewind": 2}),
        "evaluation": {"latency": {"batches": []}},
    }


def kill_at(function: str, n: int) -> None:
    """Has the n-th call of ``module:Class.function`` end this process."""
    module, path = function.split(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counting)


def in_child(work: Callable[[], Any], *, killed_after: float | None = None) -> int:
    """The wait status of a forked child."""
    child = os.fork()
    if child == 0:
        gc.freeze()  # what was imported is neither copied nor searched when a training collects garbage
        try:
            work()
        except BaseException as error:  # a child must not return into the parent's code
            print(json.dumps({"fault": f"{type(error).__name__}: {error}"}), flush=True)  # noqa: T201
            os._exit(3)
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """One line per point: whether the kill struck, and the digest of the run after it."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    for index, points in enumerate(spec["points"]):
        out = Path(spec["out"]) / str(index)
        started = time.perf_counter()

        def first(function: str, n: float, out: Path = out) -> None:
            if function not in ("never", "after"):
                kill_at(function, int(n))
            run(recipe(spec), out=out)

        struck = []
        for function, n in points if isinstance(points[0], list) else [points]:
            after = random.uniform(0, n) if function == "after" else None
            status = in_child(partial(first, function, n), killed_after=after)
            struck.append(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
        again = in_child(lambda out=out: run(recipe(spec), out=out)) if struck[-1] else status
        [folder] = list(out.iterdir())
        record = Record.load(folder) if again == 0 else None
        line = {"point": points, "struck": all(struck), "status": again, "seconds": time.perf_counter() - started}
        print(json.dumps(line | {"digest": record.digest if record else None}), flush=True)  # noqa: T201


if __name__ == "__main__":
    assert trainflat.run is run
    main()
