"""What does ``trainflat compress`` make of a fine-tuned MiniLM, in which time and memory?

The dense model is that of ``experiments.structured`` on STS-B. Each goal is one call, in a process of its own, with the
command's defaults; nothing else should run beside. Copies the records to ``results/compress/GOAL.json``.

    python -m experiments.compress --data ../shared/data --runs runs/structured
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.structured import teaching
from trainflat import plan
from trainflat.core.files import remove
from trainflat.records.compression import COMPRESSION, COMPRESSION_FILE

GOALS = {
    "speedup-2": ["--speedup", "2"],
    "speedup-3": ["--speedup", "3"],
    "latency-8ms": ["--latency", "8ms"],
    "max-drop-1": ["--max-drop", "1"],
    "size-40mb": ["--size", "40MB", "--trim"],
}


def main() -> None:
    """Calls the command once for each goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/structured"), help="of experiments.structured")
    parser.add_argument("--out", type=Path, default=Path("runs/compress"))
    parser.add_argument("--results", type=Path, default=Path("results/compress"))
    parser.add_argument("--goals", default=",".join(GOALS), help=f"of {', '.join(GOALS)}")
    given = parser.parse_args()
    # The record names the model as it was given: a path of one machine means nothing elsewhere.
    dense = Path(os.path.relpath(plan(teaching("stsb"), data=given.data, out=given.runs).folder / "stages" / "dense"))
    for goal in given.goals.split(","):
        folder = given.out / goal
        remove(folder)
        words = [
            "compress",
            str(dense),
            "--task",
            "stsb",
            "--data",
            str(given.data),
            *GOALS[goal],
            "--out",
            str(folder),
        ]
        subprocess.run([sys.executable, "-m", "trainflat", *words], check=True)
        given.results.mkdir(parents=True, exist_ok=True)
        COMPRESSION.read(folder / COMPRESSION_FILE)  # whole, or refused
        shutil.copy(folder / COMPRESSION_FILE, given.results / f"{goal}.json")


if __name__ == "__main__":
    main()
