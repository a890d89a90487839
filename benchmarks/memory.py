"""How far a piece of work pushes the peak memory of a process, measured in a process of its own.

``getrusage`` alone deceives here: its peak survives ``exec``, so a child begins with the peak of the process that
started it. The kernel's own high-water mark is set back before the work, through ``/proc/self/clear_refs``, and read
after it.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def extra_peak(work: str) -> int:
    """Bytes of resident memory at the peak of the work beyond those before it.

    Args:
        work: ``"module:function"``. The function prepares, and returns what is to be measured.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", work], check=True, capture_output=True, text=True, timeout=600
    )
    return int(json.loads(done.stdout.splitlines()[-1])["extra_peak_bytes"])


def measure(work: Callable[[], object]) -> int:
    """The same for work at hand, in this process."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    kept = work()
    peak = _status("VmHWM")
    del kept  # it was alive at the peak
    return max(0, peak - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}; memory is measured on Linux only.")


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    print(json.dumps({"extra_peak_bytes": measure(getattr(importlib.import_module(module), function)())}))
