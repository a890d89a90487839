"""Reads the runs of ``experiments.learned``: scores by method, size and teacher, and what a flat teacher changed.

A teacher by SAM is compared with one by AdamW within each seed: mean difference of the smaller models' scores, with the
interval of 95 % by Student's t over the seeds. ``--time`` first times models of the widths that the first seed's runs
found, as ``experiments.structured_table`` does.

    python -m experiments.learned_table --time
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student

from experiments.learned import AFTERWARDS, TEACHERS
from experiments.structured_table import Row, cells, read_runs, write_tables
from trainflat.records.run import Record


def rows_of(record: Record) -> Iterable[Row]:
    """Yields one row per smaller model of a run; of a learned one, as it was pruned and as it was trained again."""
    task, _, name = record.name.partition("-")
    method, _, teacher = name.rpartition("-")
    learned = method not in AFTERWARDS
    taught = record.teacher.scores[record.task.split][record.task.metric] if record.teacher else None
    for stage in record.stages:
        if stage.structure is None:
            continue
        yield {
            "task": task,
            "metric": record.task.metric,
            "method": method.partition("-")[0] + (f", {stage.name}" if learned else ""),
            "teacher": teacher,
            "seed": record.seed,
            "sparsity": stage.target_sparsity,
            "reached": stage.structure.sparsity,
            "parameters": stage.structure.parameters,
            "multiply_adds": stage.structure.multiply_adds,
            "score": record.score(stage),
            "dense": taught if taught is not None else record.score(record.stages[0]),
            "kept": stage.structure.kept_sha256,
            "recipe_hash": record.recipe_hash,
            "digest": record.digest,
        }


def by_teacher(rows: Sequence[Row]) -> list[Row]:
    """Names methods with their teachers, as the figure shows them."""
    return [row | {"method": f"{row['method']}, {row['teacher']}"} for row in rows]


def differences(rows: Sequence[Row]) -> list[Row]:
    """Compares the two teachers within each seed, for every method and size that both have."""
    found = []
    for (task, method, size), own in cells(list(rows)).items():
        one, other = ({r["seed"]: r["score"] for r in own if r["teacher"] == name} for name in reversed(TEACHERS))
        paired = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
        if paired:
            low, high = interval(paired)
            common = {"task": task, "method": method, "sparsity": size, "seeds": len(paired)}
            found.append(common | {"sam_minus_adamw": fmean(paired), "low": low, "high": high, "differences": paired})
    return found


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the interval of 95 % of the mean, by Student's t; no bounds for a single value."""
    if len(values) < 2:
        return None, None
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def markdown(rows: Sequence[Row], compared: Sequence[Row]) -> str:
    """Writes a table per task: scores by method, size and teacher, with sizes reached and the paired difference."""
    between = {(one["task"], one["method"], one["sparsity"]): one for one in compared}
    lines: list[str] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"| {task} | asked | reached | AdamW's teacher | SAM's teacher | difference |", "|---" * 6 + "|"]
        for (name, method, size), own in cells(list(rows)).items():
            if name != task:
                continue
            scores = [[row["score"] for row in own if row["teacher"] == teacher] for teacher in TEACHERS]
            reached = fmean(row["reached"] for row in own)
            told = " | ".join(_mean(one) for one in scores)
            lines.append(
                f"| {method} | {size:.0%} | {reached:.1%} | {told} | {_between(between.get((name, method, size)))} |"
            )
        lines.append("")
    return "\n".join(lines)


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "–"
    return f"{fmean(scores):.1f}" + (f" ± {stdev(scores):.1f} ({len(scores)})" if len(scores) > 1 else "")


def _between(found: Row | None) -> str:
    if found is None:
        return "–"
    told = f"{found['sam_minus_adamw']:+.1f}"
    return told if found["low"] is None else f"{told} [{found['low']:+.1f}, {found['high']:+.1f}]"


def main() -> None:
    """Writes the tables beside the runs."""
    results, records = read_runs(__doc__, Path("results/learned"))
    rows = [row for record in records for row in rows_of(record)]
    compared = differences(rows)
    write_tables(results, by_teacher(rows), markdown(rows, compared), teachers=compared)


if __name__ == "__main__":
    main()
