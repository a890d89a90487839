"""Formats names and numbers for readers of a report."""

import math
import re
import unicodedata
from collections.abc import Sequence

from trainflat.core.margins import Difference

_TASKS = {
    "cola": "CoLA",
    "mrpc": "MRPC",
    "rte": "RTE",
    "stsb": "STS-B",
    "sst2": "SST-2",
    "qnli": "QNLI",
    "qqp": "QQP",
    "mnli": "MNLI",
    "squad": "SQuAD",
}
_METRICS = {
    "accuracy": "Accuracy (%)",
    "f1": "F1 (%)",
    "exact_match": "Exact match (%)",
    "matthews": "Matthews correlation (× 100)",
    "pearson": "Pearson correlation (× 100)",
    "spearman": "Spearman correlation (× 100)",
}
DASH = "–"


def task_name(name: str) -> str:
    """Returns ``stsb`` as the papers write it, any other name as it is."""
    return _TASKS.get(name, name)


def metric_name(metric: str, positive: str = "") -> str:
    """Returns a metric's name and unit for an axis; for F1 also its positive class."""
    if metric == "f1" and positive:
        return f"F1 of {option(positive)} (%)"
    return _METRICS.get(metric, metric.replace("_", " "))


def figure_name(name: str) -> str:
    """Writes a record's name of a measure's figure as people read it."""
    return name.replace("_", " ")


def percent(share: float, digits: int = 0) -> str:
    """Writes a share in [0, 1] in percent; with as many digits as an odd sparsity takes, at most two."""
    value = 100 * share
    while digits < 2 and abs(value - round(value, digits)) > 0.5e-6:
        digits += 1
    return f"{value:.{digits}f} %"


def spread(mean: float, std: float | None, digits: int = 1) -> str:
    """Writes mean ± standard deviation, or the mean alone where there is one value."""
    text = f"{mean:z.{digits}f}"
    return text if std is None else f"{text} ± {std:.{digits}f}"


def signed(value: float, *, plus: bool = False) -> str:
    """Writes a difference with a minus sign, or with a plus."""
    return f"{value:{'+' if plus else '-'}z.1f}".replace("-", "−")


def times(ratio: float) -> str:
    """Writes how many times as many there are.

    Example:
        >>> times(2.0), times(1.2), times(1.0)
        ('twice the', '1.2 times the', 'as many')
    """
    return {"1": "as many", "2": "twice the"}.get(text := f"{ratio:.2g}", f"{text} times the")


def change(lost: Difference, rows: int) -> str:
    """Says what a difference does to a score, with its margin: ``costs 1.2 points (between 0.3 and 2.1)``.

    A difference that is not significant is said to be so; less than half of the last digit is none.
    """
    low, high = (lost.low, lost.high) if lost.value >= 0 else (-lost.high, -lost.low)
    size = f"{abs(lost.value):.1f}"
    if size == "0.0":
        return f"leaves the score where it is (between {low:z.1f} and {high:z.1f} points less)"
    doubt = "" if lost.significant else f", not significant on {rows:,} rows"
    return f"{'costs' if lost.value > 0 else 'gains'} {size} points (between {low:z.1f} and {high:z.1f}){doubt}"


def megabytes(count: float) -> str:
    """Writes bytes in units of 10^6."""
    return f"{count / 1e6:.1f}" if count >= 1e5 else f"{count / 1e6:.3f}"


def duration(seconds: float) -> str:
    """Writes seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def four_digits(value: float) -> str:
    """Writes four significant digits, thousands in full."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def places(names: Sequence[str]) -> list[str]:
    """Returns the parts of folders' paths that differ, numbered where none does; hub names as they are.

    Example:
        >>> places(["/runs/a-1/stages/dense", "/runs/b-2/stages/dense"]), places(["/runs/a-1/stages/dense"])
        (['a-1', 'b-2'], ['a-1/dense'])
    """
    parts = [
        [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "stages")] or [name] for name in names
    ]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({each[end] for each in parts}) == 1:
            for each in parts:
                del each[end]
    found = ["/".join(each) for each in parts]
    return [name if found.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(found, 1)]


def plain(label: str) -> str:
    """Returns a label in one line of letters that can be drawn."""
    return "".join(letter for letter in " ".join(label.split()) if letter.isprintable())


def option(value: object, most: int = 40) -> str:
    """Returns a recipe's value in a label: short, floats without trailing zeros."""
    text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would compute a text: it begins as formulas do, in wide letters too, and is no number."""
    beginning = unicodedata.normalize("NFKC", text).lstrip(" ")[:1]
    return beginning in tuple("=+-@\t\r\n") and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def slug(text: str) -> str:
    """Reduces a text to letters, digits, dashes and dots: safe as a file name and an HTML id on every system."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80] or "unnamed"


def numbered(names: Sequence[str]) -> list[str]:
    """Numbers names that look alike as file names."""
    return [name if names.count(name) == 1 else f"{name}-{names[:k].count(name) + 1}" for k, name in enumerate(names)]
