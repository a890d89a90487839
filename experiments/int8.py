"""What int8 costs on real text, AdamW beside SAM, dense and pruned: the paper's third experiment.

Takes finished runs, of ``experiments.flatness`` or ``experiments.prune`` for instance, scores every stage in float32
and as int8 copies on the whole validation set, and writes one file per run to ``results/int8/``: ``token`` is our
default (inputs rounded per token, the task head in float), ``batch`` rounds inputs per batch and the head too, and
``torch`` is torch's dynamic quantization by default, which the paper used (one step per weight matrix, inputs per batch
in 7 bits, head too). Then ``summary.json`` and ``summary.md``, over seeds, with the paper's table 8 in the columns of
its arithmetic; its models are BERT-base, so that what int8 costs compares there, and the scores themselves do not.

A run whose file is there is not scored again; files from before there was ``torch`` have no such scores.

    python -m experiments.int8 runs/flatness/* --data ../shared/data
"""

import argparse
import csv
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from trainflat.cli.terminal import TerminalProgress
from trainflat.core.files import read_json, write_json, write_text
from trainflat.core.processes import process_count
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.evaluation import measure_int8, score
from trainflat.models import load_encoder
from trainflat.protocols.store import STAGES
from trainflat.records import run as record
from trainflat.records.run import RECORD_FILE, Record
from trainflat.tasks import TASKS

WAYS: dict[str, dict[str, Any]] = {
    "token": {},
    "batch": {"activations": "batch", "head": True},
    "torch": {"activations": "torch", "head": True},
}
HEADS = {"token": "int8 per token", "batch": "int8 per batch, head too", "torch": "int8 as torch, head too"}
SUMMARY = "summary"


def measured(run: Path, data: Path | None, progress: Progress) -> dict[str, Any]:
    """All stages of one run, scored in float32 and in int8."""
    found = Record.load(run)
    task = TASKS.read(found.recipe["task"]).build(data=data, seed=derive_seed(found.seed, "rows"))
    stages = []
    for stage in found.stages:
        progress.say(f"{found.name}, seed {found.seed}: {stage.name}")
        encoder = load_encoder(str(run / STAGES / stage.name), task.head, fine_tuned=True)
        _, evaluation = task.encode(encoder.tokenizer, found.recipe["training"]["max_length"])
        plain = {name: score(task, encoder.model, split, encoder.tokenizer) for name, split in evaluation.items()}
        copies = {
            way: measure_int8(task, encoder.model, evaluation, encoder.tokenizer, **options)
            for way, options in WAYS.items()
        }
        shown = [f"{name} {found_in[task.split][task.metric]:.2f}" for name, found_in in _all(plain, copies).items()]
        progress.say(f"  {task.metric}: {', '.join(shown)} (recorded {found.score(stage):.2f})")
        told = {"name": stage.name, "sparsity": stage.target_sparsity, "recorded": found.score(stage), "float32": plain}
        stages.append(told | {way: copy.model_dump() for way, copy in copies.items()})
    return {
        "run": found.name,
        "optimizer": found.recipe["training"]["optimizer"],
        "averaging": found.recipe["training"].get("averaging"),
        "model": found.model.name,
        "layers": found.model.layers,
        "protocol": found.recipe["protocol"],
        "seed": found.seed,
        "task": found.task.model_dump(),
        "data": {name: one.model_dump() for name, one in task.fingerprints.items()},
        "recipe_hash": found.recipe_hash,
        "digest": found.digest,
        "environment": record.environment({"threads": torch.get_num_threads(), "processes": process_count()}),
        "stages": stages,
    }


def _all(plain: dict[str, Any], copies: dict[str, record.Int8]) -> dict[str, dict[str, Any]]:
    return {"float32": plain, **{way: copy.scores for way, copy in copies.items()}}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task, kind of run and sparsity, over seeds; in every metric that the paper or the task leads with."""
    groups: defaultdict[tuple[str, ...], list[tuple[int, dict[str, Any], str]]] = defaultdict(list)
    for run in runs:
        for stage in run["stages"]:
            name = run["run"].partition("-")[2] or run["run"]
            key = run["task"]["name"], run["model"], name, run["task"]["metric"], stage["name"]
            groups[key].append((run["seed"], stage, run["task"]["split"]))
    return [_row(key, stages) for key, stages in sorted(groups.items())]


def _row(key: tuple[str, ...], stages: list[tuple[int, dict[str, Any], str]]) -> dict[str, Any]:
    task, model, name, metric, stage = key
    plain = [each["float32"][split][metric] for _, each, split in stages]
    row: dict[str, Any] = {"task": task, "model": model, "run": name, "metric": metric, "stage": stage}
    row |= {"sparsity": stages[0][1]["sparsity"], "seeds": sorted(seed for seed, _, _ in stages)}
    row["float32"] = _spread(plain)
    for way in (way for way in WAYS if all(way in each for _, each, _ in stages)):
        values = [each[way]["scores"][split][metric] for _, each, split in stages]
        row[way] = _spread(values)
        row[f"lost_{way}"] = _spread([before - after for before, after in zip(plain, values, strict=True)])
        row[f"bytes_{way}"] = stages[0][1][way]["bytes"]
    return row


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}


def published(task: str) -> list[dict[str, str]]:
    """The paper's rows on a task."""
    text = files("trainflat.report").joinpath("reference", "quantized_int8.csv").read_text(encoding="utf8")
    return [row for row in csv.DictReader(text.splitlines()) if row["task"] == task]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Ours, and below each task's rows the paper's."""
    head = ["task, metric", "model", "run", "sparsity", "seeds", "float32"]
    head += [cell for way in WAYS for cell in (HEADS[way], "lost")]
    lines = [head, ["---"] * len(head)]
    for task in dict.fromkeys(row["task"] for row in rows):
        for row in (row for row in rows if row["task"] == task):
            cells = [f"{task}, {row['metric']}", row["model"], row["run"], f"{row['sparsity']:.0%}"]
            cells += [str(len(row["seeds"])), _cell(row["float32"])]
            lines.append([*cells, *(_cell(row.get(key)) for way in WAYS for key in (way, f"lost_{way}"))])
        lines += _published_lines(task)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _published_lines(task: str) -> list[list[str]]:
    lines, rows = [], published(task)
    for row in rows:
        who = [f"{task}, {row['metric']}", "BERT-base", f"Na et al. 2022, {row['optimizer']}", "0%", "3"]
        full, small = (f"{row[f'{kind}_mean']} ± {row[f'{kind}_std']}" for kind in ("full", "int8"))
        lost = f"{float(row['full_mean']) - float(row['int8_mean']):.2f}"
        lines.append([*who, full, "", "", "", "", small, lost])
    if rows and rows[0]["qat_reference"]:
        who = [f"{task}, {rows[0]['metric']}", "BERT-base", "Zafrir et al. 2019, Q8BERT (trained for int8)", "0%", ""]
        lines.append([*who, "", "", "", "", "", f"{rows[0]['qat_reference']} by trained ranges", ""])
    return lines


def _cell(value: dict[str, float | None] | None) -> str:
    return "" if value is None else f"{value['mean']:.2f}" + ("" if value["std"] is None else f" ± {value['std']:.2f}")


def main() -> None:
    """Scores the runs that were not scored yet, and sums up all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs; unfinished ones are left out")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results/int8"))
    given = parser.parse_args()
    for run in given.runs:
        if not (run / RECORD_FILE).is_file():
            continue
        path = given.results / f"{run.name}.json"
        if path.is_file() and read_json(path)["digest"] == Record.load(run).digest:
            continue
        with TerminalProgress() as progress:
            write_json(path, measured(run, given.data, progress))
    done = [read_json(path) for path in sorted(given.results.glob("*.json")) if path.stem != SUMMARY]
    if not done:
        raise SystemExit("none of these folders holds a finished run. Name those that `trainflat run` wrote.")
    rows = summary(done)
    write_json(given.results / f"{SUMMARY}.json", {"rows": rows})
    write_text(given.results / f"{SUMMARY}.md", markdown(rows))


if __name__ == "__main__":
    main()
