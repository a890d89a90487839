"""Compares two lines of a report: their difference paired by seed and rows, and a sentence of what it can tell."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from trainflat.core.formatting import plural
from trainflat.core.margins import Score
from trainflat.core.paired import Paired, paired
from trainflat.records.run import Record, Stage
from trainflat.report.panels import Point, main_score
from trainflat.report.words import signed

Runs = Sequence[tuple[Record, Stage]]


def paired_points(one: Point, other: Point) -> Paired | None:
    """Subtracts the main score of a line's point from another line's of the same panel.

    Seeds are paired where both lines have them, rows by group where both runs of a seed were scored on the same ones. A
    seed that was run more than once counts once, with its mean.

    Returns:
        The mean difference in points with its 95 % interval, by :func:`trainflat.core.paired.paired`: its ``over`` says
        whether the interval counts draws of seeds and rows, or what it leaves out. None where no seed has both scores.

    Example:
        >>> found = paired_points(at(sam, 0.6), at(adamw, 0.6))  # doctest: +SKIP
        >>> found.value, found.low, found.high, found.seeds, found.rows, found.significant  # doctest: +SKIP
        (0.4, -0.7, 1.5, 3, 1043, False)
        >>> sentence(found, "sam", "adamw", "60 %")  # doctest: +SKIP
        'sam − adamw at 60 %: +0.4 (−0.7 to 1.5) over 3 seeds and 1,043 rows: not told apart'
    """
    ones, others = _by_seed(one.runs), _by_seed(other.runs)
    seeds = sorted(ones.keys() & others.keys())
    if not seeds:
        return None
    rows = {seed: {_rows_of(record) for record, _ in (*ones[seed], *others[seed])} for seed in seeds}
    same = all(len(found) == 1 for found in rows.values())
    made = [[_score(by_seed[seed], paired_rows=same) for seed in seeds] for by_seed in (ones, others)]
    return paired(*made, same_rows=not same or len(set.union(*rows.values())) == 1)


def sentence(found: Paired, one: str, other: str, where: str, adjusted: float | None = None) -> str:
    """Says what a difference can and cannot tell.

    Args:
        found: One minus the other.
        one: Label of the first line.
        other: Label of the second.
        where: The sparsity, as in ``Point.title``.
        adjusted: Its p-value, adjusted for the comparisons that it is one of.
    """
    told = verdict(found, one, adjusted)
    return f"{one} − {other} at {where}: {interval(found)} over {counted(found)}: {told}"


def verdict(found: Paired, one: str, adjusted: float | None = None) -> str:
    """Says whether the first line is higher or lower, or cannot be told apart; arguments as for :func:`sentence`."""
    if not found.significant:
        return "not told apart"
    doubt = " on its own, but not among so many comparisons" if adjusted is not None and adjusted > 0.05 else ""
    return f"{one} is {'higher' if found.value > 0 else 'lower'}{doubt}"


def interval(found: Paired) -> str:
    """Writes a difference in points with its interval.

    Example:
        >>> interval(Paired(0.41, -0.7, 1.5, 0.3, 3, 1043, "seeds and rows"))
        '+0.4 (−0.7 to 1.5)'
    """
    return f"{signed(found.value, plus=True)} ({signed(found.low)} to {signed(found.high)})"


def counted(found: Paired) -> str:
    """Says how many seeds and rows an interval is over, and what it leaves out."""
    rows = plural(found.rows, "row", form=",")
    return {
        "seeds and rows": f"{plural(found.seeds, 'seed')} and {rows}",
        "seeds": f"{plural(found.seeds, 'seed')} (another draw of the {rows} may differ by more)",
        "rows": f"{rows} of one seed (another seed may differ by more)",
        "number of rows": f"one seed, bounded by its {rows} (another seed may differ by more)",
    }[found.over]


def _by_seed(runs: Runs) -> Mapping[int, Runs]:
    found: defaultdict[int, list[tuple[Record, Stage]]] = defaultdict(list)
    for record, stage in runs:
        if main_score(record, stage) is not None and record.task.split in record.data:
            found[record.seed].append((record, stage))
    return found


def _rows_of(record: Record) -> str:
    return record.data[record.task.split].sha256


def _score(runs: Runs, *, paired_rows: bool) -> Score:
    """Returns the mean score of the runs of a seed, and the mean without each group of rows where all hold it."""
    record, _ = runs[0]
    lists = [stage.without for _, stage in runs if paired_rows]
    whole = bool(lists) and len({len(each) for each in lists}) == 1
    return Score(
        value=fmean(value for record, stage in runs if (value := main_score(record, stage)) is not None),
        rows=record.data[record.task.split].rows,
        metric=record.task.metric,
        without=[fmean(each) for each in zip(*lists, strict=True)] if whole else [],
    )
