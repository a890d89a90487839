"""What each export format changes in a model fine-tuned on real text: its logits, its predictions, its score, its size.

Takes finished runs, writes the chosen stage of each in every format to a folder that is thrown away, and keeps what the
export's own check on the task's text found; where it refused to keep the file, what it said. One file per run in
``results/formats/``, and ``summary.md`` over all.

A run whose file is there is not exported again.

    python -m experiments.formats runs/pruning/*-adamw-* --data ../shared/data
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainflat.cli.terminal import TerminalProgress
from trainflat.commands.export import export
from trainflat.core.errors import InputError
from trainflat.core.files import read_json, write_json, write_text
from trainflat.core.progress import Progress
from trainflat.protocols.store import STAGES
from trainflat.records import run as record
from trainflat.records.run import RECORD_FILE, Record

FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sparse", ()),
    ("torch-export", ()),
    ("onnx", ()),
    ("openvino", ()),
    ("int8", ()),
    ("int8", ("activations=batch", "embeddings=true", "head=true")),
    ("onnx-int8", ()),
    ("onnx-int8", ("embeddings=true", "head=true")),
    ("onnx-int8", ("bits=7",)),
    ("openvino-int8", ()),
    ("openvino-int8", ("samples=32",)),
    ("openvino-int8", ("activations=dynamic",)),
)


def measured(run: Path, stage: str, data: Path | None, progress: Progress) -> dict[str, Any]:
    """One stage of a run in every format."""
    found = Record.load(run)
    formats = []
    progress.begin(f"{found.name}, {stage}", len(FORMATS))
    for done, (to, options) in enumerate(FORMATS, 1):
        formats.append(_written(run / STAGES / stage, to, options, found.task.name, data))
        progress.advance(done, " ".join([to, *options]))
    progress.end()
    return {
        "run": found.name,
        "stage": stage,
        "seed": found.seed,
        "recipe_hash": found.recipe_hash,
        "digest": found.digest,
        "task": found.task.model_dump(),
        "environment": record.environment({}),
        "formats": formats,
    }


def _written(folder: Path, to: str, options: Sequence[str], task: str, data: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        try:
            return asdict(export(folder, to, Path(place) / "file", options, task=task, data=data)) | {"set": options}
        except InputError as error:
            return {"to": to, "set": options, "refused": str(error)}


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """One row per run and format."""
    head = [
        "task",
        "format",
        "options",
        "largest difference of a logit",
        "same predictions",
        "score",
        "of float32",
        "MB",
    ]
    lines = [head, ["---"] * len(head)]
    for run in runs:
        for one in run["formats"]:
            name = [run["task"]["name"], f"`{one['to']}`", ", ".join(f"`{option}`" for option in one["set"])]
            lines.append([*name, *_cells(one)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(one: dict[str, Any]) -> list[str]:
    if "refused" in one:
        return [one["refused"], "", "", "", ""]
    scores = [f"{one['score']:.2f}", f"{one['source_score']:.2f}"]
    return [f"{one['difference']:.1e}", f"{one['agreement']:.1%}", *scores, f"{one['bytes'] / 1e6:.1f}"]


def main() -> None:
    """Exports the runs that were not exported yet, and sums up all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs; unfinished ones are left out")
    parser.add_argument("--stage", default="dense")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results/formats"))
    given = parser.parse_args()
    for run in given.runs:
        path = given.results / f"{run.name}-{given.stage}.json"
        if not (run / RECORD_FILE).is_file():
            continue
        if not path.is_file() or read_json(path)["digest"] != Record.load(run).digest:
            with TerminalProgress() as progress:
                write_json(path, measured(run, given.stage, given.data, progress))
    runs = [read_json(path) for path in sorted(given.results.glob("*.json"))]
    if not runs:
        raise SystemExit("none of these folders holds a finished run. Name those that `trainflat run` wrote.")
    write_text(given.results / "summary.md", markdown(runs))


if __name__ == "__main__":
    main()
