"""Computes 95 % confidence intervals of differences of metrics, and compares predictions with a constant answer."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

# Of rows, for a jackknife that leaves out one group at a time: few enough to store a value per group with every score,
# many enough that Student's t with 19 degrees of freedom is only 7 % wider than the normal.
GROUPS = 20
_T, _Z = 2.093, 1.960  # 97.5 % quantiles of Student's t with GROUPS - 1 degrees of freedom, and of the normal
_CORRELATIONS = ("matthews", "pearson", "spearman")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Data):
    """Holds a metric's value in percent and what its confidence interval is computed from.

    ``without`` lists the value without each of the ``GROUPS`` groups of rows. Two such lists on the same rows give the
    variance of the difference of their values; where one is missing, the number of rows bounds it.
    """

    value: float
    rows: int
    metric: str = ""
    without: list[float] = []

    @property
    def variance(self) -> float:
        """A bound by the number of rows: of a share, with 4 imagined rows against 0 at the ends (Agresti and Coull,
        1998); of a correlation, which varies most between two classes."""
        share = (abs(self.value) / 100 * self.rows + 2) / (self.rows + 4)
        spread = 1 - share**2 if self.metric in _CORRELATIONS else share * (1 - share)
        return 1e4 * spread / self.rows


class Difference(NamedTuple):
    """Holds a difference of two scores in points and its 95 % interval over draws of the rows."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Returns whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def difference(one: Score, other: Score) -> Difference:
    """Subtracts one score from another, with the 95 % interval of the difference.

    On the same rows: the jackknife over groups of rows (Quenouille, 1956; Tukey, 1958), plus the variance of one row,
    since few discordant rows can agree by chance, as Agresti and Min (2005) add to McNemar's table: five discordant
    rows that all favour one side are significant, four are not. Otherwise as if both erred independently, an upper
    bound.
    """
    value = one.value - other.value
    pairs = list(zip(one.without, other.without, strict=False))
    if len(one.without) == len(other.without) == GROUPS:
        apart = [a - b for a, b in pairs]
        middle = sum(apart) / GROUPS
        jackknife = (GROUPS - 1) / GROUPS * sum((each - middle) ** 2 for each in apart)
        half = _T * sqrt(jackknife + (100 / one.rows) ** 2)
    else:
        half = _Z * sqrt(one.variance + other.variance)
    return Difference(value, value - half, value + half)


class Answers(_Data):
    """Compares the answers on the main split with the best constant answer."""

    rows: int
    constant: bool  # every answer is the same
    common: str  # the most frequent answer
    blind: str  # the best constant answer
    baseline: float  # its score, in percent
    low: float  # 95 % interval of the model's score minus the baseline
    high: float

    @property
    def learned_nothing(self) -> bool:
        """Returns whether nothing was learned: one answer for all rows, or a score no better than a constant's."""
        return self.constant or self.low + self.high <= 0

    def remark(self) -> str:
        """Warns of a score that a constant answer reaches too; empty otherwise."""
        always = f"always answering {self.blind}, which scores {self.baseline:z.1f}"
        if self.constant:
            return f"every answer is {self.common}: no better than {always}"
        if self.learned_nothing:
            return f"no better than {always}"
        return "" if self.low > 0 else f"{self.rows:,} rows do not distinguish it from {always}"


def groups(count: int) -> Sequence[range]:
    """Deals row indices into groups; none where there are too few rows."""
    return [range(k, count, GROUPS) for k in range(GROUPS)] if count >= GROUPS else []
