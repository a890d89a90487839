"""Runs every benchmark, each in a process of its own, and says which bounds were kept."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import BENCHMARKS
from benchmarks.result import Bound
from trainflat.core.files import read_json


def main() -> int:
    """Exits 1 only if a benchmark could not run: a missed bound is a finding, not a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=None, help="rounds of each comparison")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    extra = sys.argv[1:]
    failed = [name for name in BENCHMARKS if not _run(name, extra)]
    print("All bounds:")
    for name in BENCHMARKS:
        if name not in failed:
            for bound in read_json(options.out / f"{name}.json")["bounds"]:
                print(f"  {name:10} {Bound(**{key: bound[key] for key in bound if key != 'kept'})}")
    for name in failed:
        print(f"  FAILED {name} did not finish")
    return 1 if failed else 0


def _run(name: str, extra: list[str]) -> bool:
    number = BENCHMARKS.index(name) + 1
    print(f"[{number}/{len(BENCHMARKS)}] {name}", flush=True)
    start = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *extra], check=False).returncode
    print(f"[{number}/{len(BENCHMARKS)}] {name} took {time.perf_counter() - start:.0f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
