"""Reads the runs of ``experiments.flatness``: the table, and which measure goes with what pruning costs.

Spearman's rank correlation, within each task, of every measure on the dense model with two prices of compression: what
the score loses by pruning to the reference sparsity and training on, and what it loses on average by pruning at
once without training. Positive: sharper models lose more. A method is one point, the mean over its seeds: runs of one
method are alike, and would count as evidence several times. Beside the correlation stand the interval of 2000 bootstrap
draws of the methods, and p, the share of all or 10,000 random pairings that correlate as strongly by chance. Of a
handful of methods the interval is rough, and rather too narrow; and p is of each correlation alone, of which there are
many: the table says how many would have p <= 0.05 by chance. Runs whose dense model has less than half of its task's
best score are in the table and in no correlation.

    python -m experiments.flatness_table
"""

import argparse
import warnings
from functools import reduce
from operator import getitem
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import ConstantInputWarning, permutation_test, spearmanr

from trainflat.core.files import read_json, write_json, write_text
from trainflat.records.run import Record

CHANCE = 0.05
LEARNED = 0.5  # of the best dense score of a task
COSTS = {"retrained": "pruned to 50 % and trained on", "one_shot": "pruned at once, mean of 20 to 60 %"}


def row(folder: Path) -> dict[str, Any]:
    """One run: score, costs of pruning, measures, price."""
    record, at_once = Record.load(folder), read_json(folder / "one_shot.json")
    if at_once["digest"] != record.digest:
        raise SystemExit(f"{folder / 'one_shot.json'} is of another run. Run experiments.flatness again.")
    dense, pruned = record.stages
    assert dense.training is not None
    scores = record.score(dense), record.score(pruned)
    return {
        "task": record.task.name,
        "metric": record.task.metric,
        "method": record.name.partition("-")[2],
        "seed": record.seed,
        "passes": dense.training.passes,
        "dense": scores[0],
        "pruned": scores[1],
        "one_shot": at_once["scores"],
        "lost": {"retrained": scores[0] - scores[1], "one_shot": scores[0] - fmean(at_once["scores"].values())},
        "flatness": {"dense": dense.flatness, "pruned": pruned.flatness},
        "recipe_hash": record.recipe_hash,
        "digest": record.digest,
    }


def correlation(x: list[float], y: list[float]) -> dict[str, float] | None:
    """Spearman's coefficient, its bootstrap interval, and how often chance does as well; None where all are equal."""
    if len(set(x)) == 1 or len(set(y)) == 1:
        return None
    found = permutation_test(
        (x,), lambda drawn: spearmanr(drawn, y).statistic, permutation_type="pairings", n_resamples=10_000, rng=0
    )
    generator = np.random.default_rng(0)
    pairs = np.array([x, y])
    drawn = [pairs[:, generator.integers(0, len(x), len(x))] for _ in range(2000)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)  # a draw of one run only has no ranks
        low, high = np.nanquantile([spearmanr(*one).statistic for one in drawn], [0.025, 0.975])
    value = {"rho": found.statistic, "low": low, "high": high, "p": found.pvalue}
    return {key: round(float(number), 3) for key, number in value.items()}


def correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every measure with every cost, per task."""
    found = []
    for task in sorted({r["task"] for r in rows}):
        methods = by_method(learned([r for r in rows if r["task"] == task]))
        for measure in measures(rows):
            for cost in COSTS:
                x = [fmean(r["flatness"]["dense"][measure] for r in runs) for runs in methods]
                y = [fmean(r["lost"][cost] for r in runs) for runs in methods]
                one = correlation(x, y)
                if one is not None:
                    found.append({"task": task, "measure": measure, "cost": cost, "methods": len(methods)} | one)
    return found


def learned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of one task without those that hardly learned it: a constant answer is flat, and loses nothing."""
    best = max(r["dense"] for r in rows)
    return [r for r in rows if r["dense"] >= LEARNED * best]


def by_method(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups the runs of one task by method."""
    return [[r for r in rows if r["method"] == method] for method in dict.fromkeys(r["method"] for r in rows)]


def measures(rows: list[dict[str, Any]]) -> list[str]:
    """Figures of which lower is flatter: not errors of estimates, nor the lowest eigenvalue."""
    return [name for name in rows[0]["flatness"]["dense"] if not name.endswith(("_error", "_lowest"))]


def mean(rows: list[dict[str, Any]], *path: str) -> str:
    """The mean over seeds, with the standard deviation if there are several."""
    values = [float(reduce(getitem, path, one)) for one in rows]  # type: ignore[arg-type]
    spread = f" ± {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
    return f"{fmean(values):.4g}{spread}"


def markdown(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """Both tables."""
    shown = list(rows[0]["flatness"]["dense"])
    head = ["task", "method", "seeds", "passes", "dense", "50 %", "at once, 50 %"]
    head += [f"{m}, {stage}" for m in shown for stage in ("dense", "pruned")]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for task, method in dict.fromkeys((r["task"], r["method"]) for r in rows):
        runs = [r for r in rows if (r["task"], r["method"]) == (task, method)]
        cells = [task, method, str(len(runs)), mean(runs, "passes"), mean(runs, "dense"), mean(runs, "pruned")]
        cells += [mean(runs, "one_shot", "0.5")]
        cells += [mean(runs, "flatness", stage, m) for m in shown for stage in ("dense", "pruned")]
        lines.append(" | ".join(cells))
    lines += ["", "task | measure | loses when | ρ | 95 % | p | methods", " | ".join("---" for _ in range(7))]
    lines += [
        f"{c['task']} | {c['measure']} | {COSTS[c['cost']]} | {c['rho']:+.2f} | {c['low']:+.2f} to {c['high']:+.2f} | "
        f"{c['p']:.3f} | {c['methods']}"
        for c in found
    ]
    return "\n".join(f"| {line} |" if line else "" for line in lines) + f"\n\n{chance(found)}\n"


def chance(found: list[dict[str, Any]]) -> str:
    """What so many correlations would show if there were nothing to see."""
    low = sum(c["p"] <= CHANCE for c in found)
    return (
        f"{low} of {len(found)} correlations have p ≤ {CHANCE}; {CHANCE * len(found):.1f} would have it by chance. "
        "They are not independent: all stand on the same models."
    )


def main() -> None:
    """Writes ``summary.json`` and ``summary.md`` beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/flatness"))
    results: Path = parser.parse_args().results
    rows = [row(path.parent) for path in sorted(results.glob("*/record.json"))]
    if not rows:
        raise SystemExit(f"{results} holds no runs. Run experiments.flatness first.")
    found = correlations(rows)
    write_json(results / "summary.json", {"runs": rows, "correlations": found})
    write_text(results / "summary.md", markdown(rows, found))


if __name__ == "__main__":
    main()
