"""Processes that know nothing of this package yet, forked from one that has imported what it stands on.

Importing torch and transformers takes five seconds, which most tests that need a process of their own would each pay.
One server per pytest worker pays once: ``python -m tests.support.fresh`` imports, then forks a child per request, which
imports this package anew. When the tests end, however they do, the server's input closes and it ends too.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ("torch", "transformers.trainer", "sklearn.metrics")  # the last is what a run imports where it scores
PATIENCE = 280.0


class Server:
    """Forks a child per request; a request names a module or holds code, as ``python -m`` and ``python -c`` take."""

    def __init__(self) -> None:
        quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        command = [sys.executable, "-m", "tests.support.fresh"]
        pipe, env = subprocess.PIPE, {**os.environ, **quiet}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def start(self, out: Path, **request: Any) -> int:
        """The process id of a child, whose output goes to two files in ``out``."""
        return self._ask(out=str(out), **request)

    def _ask(self, **request: Any) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """Lets it end, so that the time of its children counts as that of the tests."""
        self.process.communicate(timeout=PATIENCE)

    def ended(self, child: int) -> bool:
        return bool(self._ask(ended=child))

    def wait(self, child: int, patience: float = PATIENCE) -> int:
        """The exit status, negative for a signal; a child that takes longer than that is killed with all it started."""
        end = time.monotonic() + patience
        while not self.ended(child) and time.monotonic() < end:
            time.sleep(0.02)
        self.kill(child)
        return self._ask(wait=child)

    def kill(self, child: int) -> None:
        """With all that it started; nothing happens to one that has ended."""
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


@cache
def server() -> Server:
    return Server()


def run_fresh(*arguments: str | Path, patience: float = PATIENCE, **program: str) -> subprocess.CompletedProcess[str]:
    """Runs ``module`` or ``code`` with the arguments; gives what ``subprocess.run`` would."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        child = server().start(out, arguments=[*map(str, arguments)], **program)
        status = server().wait(child, patience)
        said = [(out / name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([], status, *said)


def _work(request: dict[str, Any]) -> None:
    """In the child, whose exit code is that of the program."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = Path(request["out"])
    out.mkdir(exist_ok=True)
    for number, name in enumerate(("stdout", "stderr"), 1):
        os.dup2(os.open(out / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(request.get("variables", {}))
    sys.argv = ["-", *request["arguments"]]
    code = 1
    try:
        if "module" in request:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        else:
            exec(compile(request["code"], "<fresh>", "exec"), {"__name__": "__main__"})  # noqa: S102
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answers each line of the input with one: a process id, or an exit status."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a child that collected what was imported here would copy its pages
    with tempfile.TemporaryDirectory() as bytecode:
        if sys.dont_write_bytecode:  # as containers set it; each child would compile our package anew
            sys.dont_write_bytecode, sys.pycache_prefix = False, bytecode
        _serve()


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "ended" in request:
            answer = os.waitid(os.P_PID, request["ended"], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        elif "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _work(request)
        print(int(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
