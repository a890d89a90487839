"""Computes differences of two methods' scores, paired by seed and by row, with intervals over draws of both."""

from collections.abc import Sequence
from math import inf, isinf, sqrt
from statistics import fmean, variance
from typing import Literal, NamedTuple

from trainflat.core.margins import GROUPS, Score, difference

# What an interval counts: another draw of seeds and rows; of seeds alone, where records do not hold what rows tell; of
# rows alone, where there is one seed; the same bounded by the number of rows.
Over = Literal["seeds and rows", "seeds", "rows", "number of rows"]


class Paired(NamedTuple):
    """Holds a mean difference in points, its 95 % interval, and the p-value of there being none.

    ``over`` says which draws the interval counts, ``seeds`` and ``rows`` how many of each it stands on.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int
    rows: int
    over: Over

    @property
    def significant(self) -> bool:
        """Returns whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired(ones: Sequence[Score], others: Sequence[Score], *, same_rows: bool) -> Paired:
    r"""Subtracts the scores of one method from another's, seed by seed.

    Seeds and rows are crossed: every seed answers the same rows. With :math:`\mu` the difference on all rows there are
    and over all seeds, S seeds on n rows see :math:`\mu + b_s + r_i + c_{si}`, and their mean has the variance
    :math:`\sigma_b^2/S + \sigma_r^2/n + \sigma_c^2/(Sn)`. The seeds' differences :math:`d_s` vary by the first and the
    last term, for the draw of rows is common to them: :math:`W = \mathrm{var}(d_s)/S`. What is missing is the
    covariance of two seeds' differences over draws of the rows, :math:`C = \sigma_r^2/n`. The jackknife over groups of
    rows estimates :math:`M = C + \sigma_c^2/(Sn)` from the mean difference and, on average, :math:`A = C +
    \sigma_c^2/n` from a single seed's: so :math:`C = (S M - A)/(S - 1)`. This is the analysis of variance for readers
    who all read the same cases, seeds being readers and rows cases (Obuchowski and Rockette, 1995, Communications in
    Statistics - Simulation 24:285). As in ``difference``, the variance of one row is added to C, since a score moves in
    steps of a row.

    Departs from them in the interval, :math:`D \pm \sqrt{t_{S-1}^2 W + t_{G-1}^2 C}` (Banerjee, 1960, Sankhya 22:359):
    it holds the truth in at least 95 % of draws however few the seeds. With the degrees of freedom of Satterthwaite or
    of Hillis (2007, Statistics in Medicine 26:596) it would be up to a third narrower, but hold it in 88 to 92 % with
    two seeds. Not a bootstrap: three seeds have ten different draws, and no bootstrap of crossed draws is unbiased
    (McCullagh, 2000, Bernoulli 6:285). ``python -m experiments.coverage`` measures what each of these holds.

    Args:
        ones: A score per seed.
        others: The same of the other method; ``others[k]`` has the seed of ``ones[k]``, and its rows.
        same_rows: Whether all seeds have the same rows; otherwise each holds out its own, which then vary with it.
    """
    pairs = list(zip(ones, others, strict=True))
    rows = min(score.rows for score in (*ones, *others))
    jackknifed = all(len(score.without) == GROUPS for score in (*ones, *others))
    if len(pairs) == 1:
        alone, freedom = difference(*pairs[0]), GROUPS - 1 if jackknifed else inf
        error = (alone.high - alone.value) / _quantile(0.05, freedom)
        return _paired(alone.value, [(error**2, freedom)], 1, rows, "rows" if jackknifed else "number of rows")
    apart = [one.value - other.value for one, other in pairs]
    common = (100 / rows) ** 2 + (_common(pairs) if jackknifed and same_rows else 0.0)
    parts = [(variance(apart) / len(apart), len(apart) - 1), (common, GROUPS - 1)]
    return _paired(fmean(apart), parts, len(apart), rows, "seeds and rows" if jackknifed or not same_rows else "seeds")


def holm(values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of several comparisons, so that any is <= 0.05 by chance in 5 % of reports (Holm, 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = least
    return adjusted


def _common(pairs: Sequence[tuple[Score, Score]]) -> float:
    """Estimates the covariance of two seeds' differences over draws of their common rows; 0 where it is negative."""
    apart = [[a - b for a, b in zip(one.without, other.without, strict=True)] for one, other in pairs]
    mean = _jackknife([fmean(each) for each in zip(*apart, strict=True)])
    alone = fmean(map(_jackknife, apart))
    return max(0.0, (len(pairs) * mean - alone) / (len(pairs) - 1))


def _jackknife(without: Sequence[float]) -> float:
    middle = fmean(without)
    return (GROUPS - 1) / GROUPS * sum((each - middle) ** 2 for each in without)


def _paired(value: float, parts: Sequence[tuple[float, float]], seeds: int, rows: int, over: Over) -> Paired:
    """Makes the interval from independent variances with their degrees of freedom; at level p it would end at 0."""

    def half(p: float) -> float:
        return sqrt(sum(_quantile(p, freedom) ** 2 * variance for variance, freedom in parts))

    low, high = 0.0, 1.0
    for _ in range(40):  # halves what is left between: to 12 digits
        middle = (low + high) / 2
        low, high = (middle, high) if half(middle) > abs(value) else (low, middle)
    return Paired(value, value - half(0.05), value + half(0.05), high, seeds, rows, over)


def _quantile(p: float, freedom: float) -> float:
    """Returns what the size of Student's t exceeds with probability p."""
    from scipy.special import ndtri, stdtrit

    return -float(ndtri(p / 2) if isinf(freedom) else stdtrit(freedom, p / 2))
