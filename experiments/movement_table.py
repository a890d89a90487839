"""Reads the runs of ``experiments.movement``: scores by method and by what remains, and what SAM adds to movement.

The difference is taken seed by seed, because both runs share teacher, head and order of rows. Two uncertainties stand
beside its mean. The 95 % interval of Student's t over the seeds, which needs two of them; it holds for this validation
set, which is the same in all runs. And what other validation rows could do, 1.96 sqrt(p (1 - p) / n + q (1 - q) / n)
for the accuracies p and q on n rows, as if both models erred independently: they err alike on hard rows, so it is an
upper bound; a single seed has it too.

    python -m experiments.movement_table
"""

import argparse
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as students_t

from trainflat.core.files import write_json, write_text
from trainflat.records.run import Record

Row = dict[str, Any]


def row(folder: Path) -> Row:
    """One run: its score, its price, and the score of the teacher beside it."""
    record = Record.load(folder)
    [stage] = record.stages
    assert stage.training is not None
    name = record.name.partition("-")[2]
    method, _, remaining = name.rpartition("-") if record.teacher else (name, "", "100")
    return {
        "task": record.task.name,
        "metric": record.task.metric,
        "method": method,
        "remaining_percent": float(remaining),
        "seed": record.seed,
        "score": record.score(stage),
        "validation_rows": record.data[record.task.split].rows,
        "teacher": record.teacher.scores[record.task.split][record.task.metric] if record.teacher else None,
        "sparsity": stage.sizes.encoder_sparsity,
        "passes": stage.training.passes,
        "recipe_hash": record.recipe_hash,
        "digest": record.digest,
    }


def groups(rows: list[Row]) -> dict[tuple[str, float], list[Row]]:
    """Rows by method and by what remains: the seeds of each."""
    found: dict[tuple[str, float], list[Row]] = {}
    for one in sorted(rows, key=lambda r: (-r["remaining_percent"], r["method"], r["seed"])):
        found.setdefault((one["method"], one["remaining_percent"]), []).append(one)
    return found


def differences(rows: list[Row]) -> list[Row]:
    """SAM minus AdamW, for each method that was run with both, over the seeds that both were run with."""
    known, found = groups(rows), []
    for (method, remaining), runs in known.items():
        flat = {r["seed"]: r for r in known.get((f"{method}-sam", remaining), [])}
        pairs = [(r, flat[r["seed"]]) for r in runs if r["seed"] in flat]
        if pairs:
            gains = [sam["score"] - adamw["score"] for adamw, sam in pairs]
            rows_95 = fmean(of_rows(*pair) for pair in pairs)
            one = {"method": method, "remaining_percent": remaining, "gains": gains, "rows_95": rows_95}
            found.append(one | interval(gains))
    return found


def of_rows(*runs: Row) -> float:
    """Half the 95 % interval of a difference of two accuracies, by the number of validation rows alone."""
    assert all(r["metric"] == "accuracy" for r in runs)
    return 196 * sqrt(sum(r["score"] / 100 * (1 - r["score"] / 100) / r["validation_rows"] for r in runs))


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean, standard deviation and the 95 % interval of the mean; a single value has the first only."""
    mean = fmean(values)
    if len(values) < 2:
        return {"mean": mean, "std": None, "low": None, "high": None}
    half = float(students_t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return {"mean": mean, "std": stdev(values), "low": mean - half, "high": mean + half}


def spread(values: list[float]) -> str:
    """``83.1 ± 0.4``: mean and standard deviation over the seeds."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def markdown(rows: list[Row], found: list[Row]) -> str:
    """Both tables."""
    head = [f"{rows[0]['task']}, {rows[0]['metric']}", "remaining", "seeds", "score", "to the teacher", "passes"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for (method, remaining), runs in groups(rows).items():
        behind = [r["score"] - r["teacher"] for r in runs if r["teacher"] is not None]
        cells = [method, f"{remaining:g} %", str(len(runs)), spread([r["score"] for r in runs])]
        cells += [spread(behind) if behind else "", f"{fmean(r['passes'] for r in runs):.0f}"]
        lines.append(" | ".join(cells))
    head = ["SAM − AdamW", "remaining", "seeds", "difference", "95 % of rows", "95 % of seeds"]
    lines += ["", " | ".join(head), " | ".join("---" for _ in head)]
    for one in found:
        known = "" if one["low"] is None else f"{one['low']:+.1f} to {one['high']:+.1f}"
        cells = [one["method"], f"{one['remaining_percent']:g} %", str(len(one["gains"])), f"{one['mean']:+.1f}"]
        lines.append(" | ".join([*cells, f"± {one['rows_95']:.1f}", known]))
    return "\n".join(f"| {line} |" if line else "" for line in lines) + "\n"


def main() -> None:
    """Writes ``summary.json`` and ``summary.md`` beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/movement"))
    results: Path = parser.parse_args().results
    rows = [row(path.parent) for path in sorted(results.glob("*/record.json"))]
    if not rows:
        raise SystemExit(f"{results} holds no runs. Run experiments.movement first.")
    found = differences(rows)
    write_json(results / "summary.json", {"runs": rows, "differences": found})
    write_text(results / "summary.md", markdown(rows, found))


if __name__ == "__main__":
    main()
