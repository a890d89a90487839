"""Kills the measuring of a plane with SIGKILL at chosen moments, measures on, and prints what came of it as JSON lines.

Called by ``test_landscape_store.py`` as ``python -m tests.support.landscape_kill_driver FOLDER``. One process imports
everything and forks a child per run, as ``kill_driver`` does.
"""

import json
import os
import sys
from pathlib import Path

import torch

from tests.conftest import tiny_bert
from tests.support.kill_driver import in_child, kill_at
from tests.support.loss_planes import BERT, sentences
from trainflat.sharpness import Objective, loss_plane

POINTS = [
    ("never", 0),
    ("trainflat.objective.base:Objective.value", 1),  # nothing is there yet
    ("trainflat.objective.base:Objective.value", 9),
    ("trainflat.core.files:os.fsync", 1),
    ("trainflat.core.files:os.fsync", 5),  # the new file is written, but lies beside the old one
    ("trainflat.core.files:Path.replace", 11),
    ("trainflat.sharpness.landscape:PlaneRecord", 1),  # all is measured, nothing returned
]


def measure(folder: Path) -> None:
    """The plane with its store, and how many forward passes that took, into a file."""
    model, passes = tiny_bert(5), []
    model.register_forward_hook(lambda *_: passes.append(1))
    plane = loss_plane(Objective(model, sentences()), BERT, size=3, store=folder / "store.json")
    (folder / "plane.json").write_text(json.dumps([plane.model_dump(mode="json"), len(passes) // 2]))


def main() -> None:
    """One line per point: how the first child ended, and the plane and passes of the last."""
    torch.set_num_threads(1)
    for index, (function, n) in enumerate(POINTS):
        folder = Path(sys.argv[1]) / str(index)
        folder.mkdir()

        def first(function: str = function, n: int = n, folder: Path = folder) -> None:
            if function != "never":
                kill_at(function, n)
            measure(folder)

        status = in_child(first)
        stored = folder / "store.json"
        kept = len(json.loads(stored.read_text())["losses"]) if stored.exists() else 0
        if status:
            in_child(lambda folder=folder: measure(folder))
        plane, passes = json.loads((folder / "plane.json").read_text())
        left = sorted(path.name for path in folder.iterdir())
        print(json.dumps({"point": function, "signal": os.WTERMSIG(status), "kept": kept, "passes": passes}))  # noqa: T201
        print(json.dumps({"plane": plane, "left": left}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
