"""Computes 95 % margins of differences of scores, and whether answers depend on the text at all."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

GROUPS = 20  # that the rows are dealt to in turn, to see how much a score depends on which rows there are
_T, _Z = 2.093, 1.960  # 97.5 % quantiles of Student's t with GROUPS - 1 degrees of freedom, and of the normal
_CORRELATIONS = ("matthews", "pearson", "spearman")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Data):
    """Holds a score in percent and the rows behind its margin.

    ``without`` holds the score without each of the ``GROUPS`` groups of rows. Two such lists on the same rows tell how
    sure the difference of their scores is; where one is missing, the number of rows bounds it.
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
    def told(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def difference(one: Score, other: Score) -> Difference:
    """Subtracts one score from another, with the interval.

    Pairs on the same rows: the jackknife over groups of rows (Quenouille, 1956; Tukey, 1958), and one row more for
    what few rows that differ can do by chance, as Agresti and Min (2005) add to McNemar's table: five rows that all
    speak for one side are told apart, four are not. Otherwise as if both erred independently, which is an upper bound.
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
    common: str  # the most frequent one
    blind: str  # the best answer that ignores the text
    baseline: float  # what it scores, in percent
    low: float  # the interval of the score above that
    high: float

    @property
    def nothing(self) -> bool:
        """Whether nothing was learned: one answer for all rows, or a score no better than a constant answer's."""
        return self.constant or self.low + self.high <= 0

    def remark(self) -> str:
        """Warns of a score that a constant answer reaches too; empty otherwise."""
        always = f"always answering {self.blind}, which scores {self.baseline:z.1f}"
        if self.constant:
            return f"every answer is {self.common}: no better than {always}"
        if self.nothing:
            return f"no better than {always}"
        return "" if self.low > 0 else f"{self.rows:,} rows do not tell it from {always}"


def groups(count: int) -> Sequence[range]:
    """Deals row indices into groups; none where there are too few rows."""
    return [range(k, count, GROUPS) for k in range(GROUPS)] if count >= GROUPS else []
