"""Shows what scores do not: loyalty to the dense model, and behavioural tests paired with it case by case."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from statistics import fmean

import numpy as np

from trainflat.records.behaviour import Checklist, SuiteTest
from trainflat.records.run import Int8, Record, Stage
from trainflat.report.elements import Axis, Plot, Rows, Table
from trainflat.report.palette import Palette
from trainflat.report.panels import Line, Panel, Point, Statistics, all_at
from trainflat.report.sections.base import Row, Section, against_sparsity, focus, sparsity_axis
from trainflat.report.words import DASH, signed, slug, spread

DENSE = "dense"  # the stage that others are paired with
_DRAWS = 2000
_LOYALTY = "Loyalty compares answers with those of the run's dense model, or of the one that the recipe names: "
_SCORES = {  # by the first name of a loyalty's scores
    "label": "the share of rows with the same label, and 1 - the mean root of the Jensen-Shannon divergence of the "
    "probabilities (base {base} of its logarithm).",
    "pearson": "correlations of both scores.",
    "exact_match": "exact match and F1 with its spans in place of gold answers.",
}
_TESTS = (
    "Failed: share of the cases of a suite of behavioural tests (CheckList), of those to which their test applies. "
    "Regressions and fixes are paired: cases that the dense model of the same run passed and this one fails, and the "
    "other way round, of those that apply to both. Change: regressions minus fixes, in points, and in brackets the "
    "middle 95 % when cases are drawn anew (bootstrap by case: other cases of the same templates, not other templates)."
)
_PARTS = (
    "Behavioural tests by capability and type (MFT: minimum functionality, INV: invariance, DIR: direction), cases of "
    "all seeds together."
)
_NAMES = {
    "label": "Label loyalty (%)",
    "probability": "Probability loyalty (%)",
    "pearson": "Pearson with the dense scores (× 100)",
    "spearman": "Spearman with the dense scores (× 100)",
    "exact_match": "Exact match with the dense spans (%)",
    "f1": "F1 with the dense spans (%)",
}
Copy = Stage | Int8


class Behaviour(Section):
    """Plots loyalties and failure rates against sparsity, and sets both beside the dense model's in tables."""

    title = "Behaviour"
    anchor = "behaviour"
    key = "behaviour"

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        def plot(title: str, axis: Axis, measure: Callable[[Point], Statistics | None]) -> Plot:
            return Plot([against_sparsity(panel, palette, measure)], sparsity_axis(panel), axis, title)

        shared = Axis(low=-3, high=103, step=20)  # on which capabilities compare
        loyal = [plot(_NAMES[name], Axis(), partial(_loyalty, which=_float32, name=name)) for name in _loyalties(panel)]
        failed = [
            plot(f"Failed, {name or 'all tests'} (%)", shared, partial(_failed, which=_float32, capability=name))
            for name in _capabilities(panel)
        ]
        return loyal + failed

    def caption(self, panel: Panel) -> str:
        return " ".join(_about(panel))

    def tables(self, panel: Panel) -> Sequence[Table]:
        rows = [row for line in panel.lines for point in line.points for row in _rows(panel, line, point)]
        target = focus(panel)
        parts = [
            row
            for line in panel.lines
            for point in all_at(line, target)
            for copy in (_float32, _int8)
            for row in _by_capability(line, point, copy)
        ]
        return [
            Table(rows, " ".join(["Behaviour.", *_about(panel)])),
            Table(sorted(parts, key=itemgetter("Capability", "Type")), _PARTS),
        ]

    def columns(self, panel: Panel, point: Point) -> Row:
        row: Row = {}
        for prefix, copy in (("", _float32), ("int8_", _int8)):
            for name in _loyalties(panel):
                found = _loyalty(point, copy, name)
                row[f"{prefix}loyalty_{name}"] = found and found.mean
            for name in _capabilities(panel):
                failed = _failed(point, copy, name)
                row[f"{prefix}checklist_failed{f'_{slug(name)}' if name else ''}"] = failed and failed.mean
            if _capabilities(panel):
                pairs = _pairs(point, copy)
                row[f"{prefix}checklist_regressions"] = pairs and pairs.regressions
                row[f"{prefix}checklist_fixes"] = pairs and pairs.fixes
        return {name: value for name, value in row.items() if value is not None or not name.startswith("int8_")}


def _float32(stage: Stage) -> Copy | None:
    return stage


def _int8(stage: Stage) -> Copy | None:
    return stage.int8


Which = Callable[[Stage], Copy | None]


@dataclass(frozen=True)
class Pairs:
    """Holds shares of the cases, in percent, that two models answer with another outcome.

    Attributes:
        cases: That apply to both models, of all seeds.
        before: Share that the dense model fails.
        regressions: Share that only the other fails.
        fixes: Share that only the dense one fails.
        low, high: Between which the regressions minus the fixes are.
    """

    cases: int
    before: float
    regressions: float
    fixes: float
    low: float
    high: float

    def cells(self) -> dict[str, str]:
        """Returns the cells of a table."""
        value, low, high = (signed(one, plus=True) for one in (self.regressions - self.fixes, self.low, self.high))
        cells = {"Regressions": f"{self.regressions:.1f}", "Fixes": f"{self.fixes:.1f}"}
        return cells | {"Change": f"{value} [{low}, {high}]"}


def bootstrap(changes: Sequence[float], draws: int = _DRAWS) -> tuple[float, float]:
    """Returns the middle 95 % of the mean of values that are drawn with replacement.

    Drawing n of n cases with replacement is drawing their distinct values from a multinomial distribution, which takes
    no more time for many cases than for few.
    """
    values, counts = np.unique(np.asarray(changes), return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(changes), counts / len(changes), size=draws)
    low, high = np.quantile(drawn @ values / len(changes), [0.025, 0.975])
    return float(low), float(high)


def _about(panel: Panel) -> Iterator[str]:
    bases = {str(copy.loyalty.base) for copy in _copies(panel) if copy.loyalty}
    for name in _loyalties(panel):
        if name in _SCORES:
            yield _LOYALTY + _SCORES[name].format(base=" or ".join(sorted(bases)))
    if _suites(panel):
        yield f"{_TESTS} Suite: {', '.join(_suites(panel))}."


def _copies(panel: Panel) -> list[Copy]:
    stages = [stage for record in panel.records for stage in record.stages]
    return [*stages, *(stage.int8 for stage in stages if stage.int8)]


def _suites(panel: Panel) -> list[str]:
    found = (copy.checklist for copy in _copies(panel) if copy.checklist)
    return sorted({f"{one.suite}, at most {one.most:,} cases per test" for one in found})


def _loyalties(panel: Panel) -> list[str]:
    found = {name for copy in _copies(panel) if copy.loyalty for name in copy.loyalty.scores}
    return [name for name in _NAMES if name in found]


def _capabilities(panel: Panel) -> list[str]:
    """Returns "" for all tests, then the capabilities; nothing where no test was made."""
    found = {test.capability for copy in _copies(panel) if copy.checklist for test in copy.checklist.tests}
    return ["", *sorted(found)] if found else []


def _loyalty(point: Point, which: Which, name: str) -> Statistics | None:
    def of(_: Record, stage: Stage) -> float | None:
        copy = which(stage)
        return copy.loyalty.scores.get(name) if copy and copy.loyalty else None

    return point.over_seeds(of)


def _failed(point: Point, which: Which, capability: str = "", kind: str = "") -> Statistics | None:
    """Returns the percentage of failed cases over seeds, among those that apply."""

    def of(_: Record, stage: Stage) -> float | None:
        copy = which(stage)
        tests = [] if copy is None else _tests(copy.checklist, capability, kind)
        outcomes = [fail for test in tests for fail in test.failures if fail is not None]
        return 100 * fmean(outcomes) if outcomes else None

    return point.over_seeds(of)


def _tests(checklist: Checklist | None, capability: str, kind: str) -> list[SuiteTest]:
    found = checklist.tests if checklist else []
    return [test for test in found if capability in ("", test.capability) and kind in ("", test.type)]


def _pairs(point: Point, which: Which, capability: str = "", kind: str = "") -> Pairs | None:
    """Pairs each run's failed cases with those of its dense stage; None where no case is in both."""
    changes: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    before: list[bool] = []
    for record, stage in point.runs:
        copy, dense = which(stage), next((one for one in record.stages if one.name == DENSE), None)
        if copy is None or dense is None or copy is dense or not _same_cases(copy.checklist, dense.checklist):
            continue
        both = zip(*(_tests(one.checklist, capability, kind) for one in (dense, copy)), strict=True)
        for one, other in both:
            for case, (was, now) in enumerate(zip(one.failures, other.failures, strict=True)):
                if was is not None and now is not None:
                    before.append(was)
                    changes[one.name, case].append(now - was)
    if not before:
        return None
    every = [change for values in changes.values() for change in values]
    low, high = bootstrap([100 * fmean(values) for values in changes.values()])
    lost, won = (100 * fmean(change == way for change in every) for way in (1, -1))
    return Pairs(len(every), 100 * fmean(before), lost, won, low, high)


def _same_cases(one: Checklist | None, other: Checklist | None) -> bool:
    if one is None or other is None:
        return False
    drawn = [[(test.name, test.capability, test.type, test.cases) for test in found.tests] for found in (one, other)]
    return (one.sha256, one.most, one.seed, drawn[0]) == (other.sha256, other.most, other.seed, drawn[1])


def _rows(panel: Panel, line: Line, point: Point) -> Iterator[dict[str, str]]:
    for weights, which in (("float32", _float32), ("int8", _int8)):
        loyal = {_NAMES[name]: _shown(_loyalty(point, which, name)) for name in _loyalties(panel)}
        tested = {}
        if _capabilities(panel):
            pairs = _pairs(point, which)
            blank = dict.fromkeys(("Regressions", "Fixes", "Change"), DASH)
            tested = {"Failed (%)": _shown(_failed(point, which)), **(pairs.cells() if pairs else blank)}
        if any(cell != DASH for cell in (*loyal.values(), *tested.values())):
            yield {"Optimizer": line.label, "Sparsity": point.title, "Weights": weights, **loyal, **tested}


def _by_capability(line: Line, point: Point, which: Which) -> Rows:
    found = [test for _, stage in point.runs if (copy := which(stage)) for test in _tests(copy.checklist, "", "")]
    groups = sorted({(test.capability, test.type) for test in found})
    rows = []
    for capability, kind in groups:
        pairs = _pairs(point, which, capability, kind)
        dense = {"Dense failed (%)": f"{pairs.before:.1f}"} if pairs else {}
        rows.append(
            {
                "Capability": capability,
                "Type": kind,
                "Optimizer": line.label,
                "Sparsity": point.title,
                "Weights": "float32" if which is _float32 else "int8",
                "Cases": f"{pairs.cases:,}" if pairs else DASH,
                **dense,
                "Failed (%)": _shown(_failed(point, which, capability, kind)),
                **(pairs.cells() if pairs else {}),
            }
        )
    return rows


def _shown(found: Statistics | None) -> str:
    return DASH if found is None else spread(found.mean, found.std)
