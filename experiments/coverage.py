"""Measures how often intervals of paired differences hold the truth, by simulation.

Two methods are trained with a few seeds, and answer the same rows. An answer is right where a hidden number is
positive, to which the row's difficulty adds, what the row is to the method, what the seed did to the method, and
chance; truth is the difference on all rows there are and over all seeds. Beside the interval of
``trainflat.core.paired`` stand Student's t over the seeds' differences alone and the percentiles of a bootstrap that
draws seeds and rows: what share of each one's intervals hold the truth, of 95 % that should, and half of their width.

    python -m experiments.coverage
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.special import ndtr

from trainflat.core.files import write_json, write_text
from trainflat.core.margins import GROUPS, Score
from trainflat.core.paired import paired

Interval = tuple[float, float]
_SHARED, _OWN = 0.5, 0.1  # of the hidden number's variance: the row's difficulty, and the row's to one method
_GROUPS_OF_SUMS = "bmsgk"


@dataclass(frozen=True)
class Setting:
    """What is simulated: ``spread`` is the seeds' standard deviation, in units of the hidden number's."""

    metric: str
    seeds: int
    rows: int
    spread: float
    effect: float = 0.0  # what the first method's hidden number has more

    @property
    def truth(self) -> float:
        """The difference of the scores on all rows and over all seeds, in percent."""
        one, other = (100 * float(ndtr((_LEVEL + more) / sqrt(1 + self.spread**2))) for more in (self.effect, 0.0))
        return one - other


_LEVEL = 0.8  # right answers: 79 %


def settings() -> Iterator[Setting]:
    """Few seeds and few rows, with seeds that matter little and much."""
    for metric in ("accuracy", "matthews", "pearson"):
        for seeds in (2, 3, 5):
            for rows in (277, 1043) if metric == "accuracy" else (277,):
                for spread in (0.0, 0.05, 0.2):
                    yield Setting(metric, seeds, rows, spread)
    yield Setting("accuracy", 3, 277, 0.05, effect=0.2)
    yield Setting("accuracy", 3, 60, 0.05)


def simulate(setting: Setting, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws targets [D, N] and answers [D, 2 methods, S, N] of one metric."""
    normal = generator.standard_normal
    shape = (draws, 2, setting.seeds, setting.rows)
    hidden = sqrt(_SHARED) * normal((draws, 1, 1, setting.rows)) + sqrt(_OWN) * normal((draws, 2, 1, setting.rows))
    hidden = hidden + sqrt(1 - _SHARED - _OWN) * normal(shape)
    seed = setting.spread * normal((draws, 2, setting.seeds, 1))
    level = _LEVEL + np.array([setting.effect, 0.0]).reshape(1, 2, 1, 1)
    if setting.metric == "pearson":
        gold = normal((draws, setting.rows))
        return gold, (1 + seed) * gold[:, None, None] + 0.7 * hidden
    gold = np.where(generator.random((draws, setting.rows)) < 0.7, 1.0, -1.0)
    if setting.metric == "accuracy":
        return gold, gold[:, None, None] * np.sign(level + seed + hidden)
    return gold, np.sign(gold[:, None, None] * (level + hidden) + seed)  # a seed leans to one of the classes


def scores(metric: str, gold: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [D, 2, S] and those without each group of rows [D, 2, S, G], by sums over groups."""
    target = np.broadcast_to(gold[:, None, None], answers.shape)
    terms = _TERMS[metric](target, answers)
    padded = -answers.shape[-1] % GROUPS
    sums = [np.pad(term, [(0, 0)] * 3 + [(0, padded)]).reshape(*term.shape[:3], -1, GROUPS).sum(-2) for term in terms]
    whole = [each.sum(-1) for each in sums]
    without = [all_[..., None] - each for all_, each in zip(whole, sums, strict=True)]
    return 100 * _SCORES[metric](*whole), 100 * _SCORES[metric](*without)


def intervals(setting: Setting, gold: np.ndarray, answers: np.ndarray) -> Iterator[dict[str, Interval]]:
    """Yields the intervals of each draw, by method."""
    from scipy.special import stdtrit

    values, without = scores(setting.metric, gold, answers)
    generator = np.random.default_rng(0)
    quantile = float(stdtrit(setting.seeds - 1, 0.975))
    for k in range(len(values)):
        made = [
            [
                Score(value=v, rows=setting.rows, without=w)
                for v, w in zip(values[k, m], without[k, m].tolist(), strict=True)
            ]
            for m in (0, 1)
        ]
        ours = paired(*made, same_rows=True)
        apart = values[k, 0] - values[k, 1]
        half = quantile * float(apart.std(ddof=1)) / sqrt(setting.seeds)
        found = {"ours": (ours.low, ours.high), "seeds": (ours.value - half, ours.value + half)}
        if setting.metric == "accuracy":
            found["bootstrap"] = _bootstrap(50 * (gold[k] * (answers[k, 0] - answers[k, 1])), generator)
        yield found


def _bootstrap(apart: np.ndarray, generator: np.random.Generator, draws: int = 200) -> Interval:
    """Returns percentiles of the mean of [S, N] over draws of its lines and its columns."""
    seeds, rows = apart.shape
    chosen = generator.multinomial(seeds, [1 / seeds] * seeds, draws) / seeds
    weights = generator.multinomial(rows, [1 / rows] * rows, draws) / rows
    low, high = np.quantile(((weights @ apart.T) * chosen).sum(1), [0.025, 0.975])
    return float(low), float(high)


def measure(setting: Setting, draws: int, seed: int = 0) -> dict[str, Any]:
    """Returns the share of intervals that hold the truth, and half of their mean width, by method."""
    generator = np.random.default_rng(seed)
    found: list[dict[str, Interval]] = []
    for start in range(0, draws, 100):
        found += intervals(setting, *simulate(setting, min(100, draws - start), generator))
    row: dict[str, Any] = asdict(setting) | {"draws": draws}
    for name in found[0]:
        each = [one[name] for one in found]
        row[f"{name}_holds"] = fmean(low <= setting.truth <= high for low, high in each)
        row[f"{name}_half"] = fmean((high - low) / 2 for low, high in each)
    return row


def _counts(gold: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    return [((gold == a) & (given == b)).astype(float) for a in (1, -1) for b in (1, -1)]


def _moments(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    return [np.ones_like(x), x, y, x * x, y * y, x * y]


def _matthews(tp: np.ndarray, fn: np.ndarray, fp: np.ndarray, tn: np.ndarray) -> np.ndarray:
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / np.sqrt(np.maximum(product, 1.0))


def _pearson(*sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums
    return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))


_TERMS: dict[str, Any] = {
    "accuracy": lambda gold, given: [np.ones_like(gold), (gold == given).astype(float)],
    "matthews": _counts,
    "pearson": _moments,
}
_SCORES: dict[str, Any] = {"accuracy": lambda n, right: right / n, "matthews": _matthews, "pearson": _pearson}


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the table of docs/experiments.md."""
    head = "| metric | seeds | rows | spread of seeds | effect | ours | t over seeds alone | bootstrap of both |"
    lines = [head, "|---" * 8 + "|"]
    for row in rows:
        told = [
            f"{100 * row[f'{name}_holds']:.1f} % (± {row[f'{name}_half']:.1f})" if f"{name}_holds" in row else "–"
            for name in ("ours", "seeds", "bootstrap")
        ]
        setting = [row[key] for key in ("metric", "seeds", "rows", "spread", "effect")]
        lines.append(f"| {' | '.join(map(str, [*setting, *told]))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes ``coverage.json`` and ``coverage.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("results/statistics"))
    given = parser.parse_args()
    rows = [measure(setting, given.draws) for setting in settings()]
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "coverage.json", rows)
    write_text(given.out / "coverage.md", to_markdown(rows))


if __name__ == "__main__":
    main()
