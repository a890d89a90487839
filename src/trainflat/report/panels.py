"""Groups records into panels of comparable runs, lines of runs that differ only by seed, and points by sparsity."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from statistics import fmean, stdev
from typing import Any

from trainflat.core.files import hash_json
from trainflat.core.formatting import plural
from trainflat.records.run import Record, Stage
from trainflat.report.labels import label_lines
from trainflat.report.options import completed, unusual
from trainflat.report.words import metric_name, percent, task_name

# Say who a run is, or what was looked at, not what was trained.
_NOT_A_TRAIT = {"seed", "name", "description", "evaluation", "measures", "report_to", "log_every"}
_SPARSITIES = (
    "sparsity",
    "sparsities",
    "target_sparsity",
)  # how far a run went, which the points say; of an optimizer another thing
_OPTIMIZER = "training.optimizer"  # where a recipe has it
_OWN_DATA = "files"  # the task that may be on any data set
Trait = tuple[str, Any]  # dotted key and value of one setting


@dataclass(frozen=True)
class Statistics:
    """Holds mean, sample standard deviation (None for one seed) and number of seeds."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Point:
    """Holds one stage of the protocol in every run of a line."""

    stage: str
    target: float  # sparsity that was asked for, a share
    runs: tuple[tuple[Record, Stage], ...]
    alone: bool = True  # no other stage of the line has this target

    @property
    def title(self) -> str:
        """Returns the sparsity in percent, with the stage where several have it: pruned, and trained once more."""
        return percent(self.target) if self.alone else f"{percent(self.target)}, {self.stage}"

    def over_seeds(self, measure: Callable[[Record, Stage], float | None]) -> Statistics | None:
        """Returns a measure's statistics over seeds; a seed that was run more than once counts once, with its mean."""
        by_seed = defaultdict(list)
        for record, stage in self.runs:
            value = measure(record, stage)
            if value is not None:
                by_seed[record.seed].append(value)
        return _statistics([fmean(values) for values in by_seed.values()])

    @property
    def score(self) -> Statistics | None:
        """Returns the main score in percent; None where no run measured it."""
        return self.over_seeds(main_score)

    @property
    def remarks(self) -> list[str]:
        """Says why scores of some runs may stand for nothing learned, each reason once."""
        return list(dict.fromkeys(remark for _, stage in self.runs for remark in stage.remarks()))


@dataclass(frozen=True)
class Line:
    """Holds the runs of one recipe under different seeds."""

    optimizer: str
    label: str  # unique in its panel
    variant: int  # 0, 1, … among the panel's lines of this optimizer
    records: tuple[Record, ...]
    points: tuple[Point, ...]  # by sparsity


@dataclass(frozen=True)
class Panel:
    """Holds lines of one task, split, metric, model, protocol and amount of data, whose scores compare."""

    task: str
    split: str
    metric: str
    positive: str  # the class that F1 is of, of two
    model: str
    layers: int
    protocol: str
    partial: bool
    rows: int  # of the scored split
    data: str  # which of a user's own data sets; "" where the task's name says it
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """Returns task, model and protocol in one line."""
        return f"{self.task_title} · {self.model}, {plural(self.layers, 'layer')} · {self.protocol}"

    @property
    def task_title(self) -> str:
        """Returns the task as papers write it, and which data set where the task may be on any."""
        return f"{task_name(self.task)} ({self.data})" if self.data else task_name(self.task)

    @property
    def scored_on(self) -> str:
        """Returns metric and split in one line."""
        rows = f", {plural(self.rows, 'row', form=',')}" if self.rows else ""
        return f"{metric_name(self.metric, self.positive)} on {self.split}{rows}"

    @property
    def records(self) -> tuple[Record, ...]:
        """Returns the records of all lines."""
        return tuple(record for line in self.lines for record in line.records)

    @property
    def targets(self) -> list[float]:
        """Returns the sparsities of all lines, ascending."""
        return sorted({point.target for line in self.lines for point in line.points})


def make_panels(records: Iterable[Record]) -> list[Panel]:
    """Groups records; the order follows names only, so that the same records give the same report."""
    groups: defaultdict[Panel, list[Record]] = defaultdict(list)
    sections: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[_empty_panel(record)].append(record)
        sections[record.optimizer].append(optimizer_section(record))
    told = {name: {f"{_OPTIMIZER}.{key}" for key in unusual(found)} for name, found in sections.items()}
    return [replace(panel, lines=_lines(groups[panel], told)) for panel in sorted(groups, key=astuple)]


def at(line: Line, target: float) -> Point | None:
    """Returns the line's last point at a sparsity."""
    return next(reversed(all_at(line, target)), None)


def all_at(line: Line, target: float) -> list[Point]:
    """Returns the line's points at a sparsity, in the order of the stages."""
    return [point for point in line.points if point.target == target]


def titles(panels: Iterable[Panel]) -> list[str]:
    """Returns the titles of all points, by sparsity."""
    points = [point for panel in panels for line in panel.lines for point in line.points]
    return list(dict.fromkeys(point.title for point in sorted(points, key=lambda point: point.target)))


def main_score(record: Record, stage: Stage) -> float | None:
    """Returns the main score of a stage in percent, if it was measured."""
    return stage.scores.get(record.task.split, {}).get(record.task.metric)


def is_partial(record: Record) -> bool:
    """Returns whether any split held only some of the official rows."""
    return any(fingerprint.partial for fingerprint in record.data.values())


def rewind(record: Record) -> int | None:
    """Returns the step to whose weights an iterative protocol goes back, by default 0; None where it does not."""
    value = dict(traits(record)).get("protocol.rewind", 0)
    return None if value == "none" else int(value)


def protocol_name(record: Record) -> str:
    """Returns the protocol's name, for an iterative one with the step that it rewinds to."""
    if record.protocol != "iterative":
        return record.protocol
    step = rewind(record)
    if step is None:
        return "iterative, not rewound"
    return f"iterative, rewound to step {step}" if step else "iterative, rewound to the start"


def traits(record: Record) -> list[Trait]:
    """Returns every setting of the recipe that makes a run another experiment, and how many rows it saw."""
    rows = [(f"{split} rows", fingerprint.rows) for split, fingerprint in sorted(record.data.items())]
    section = completed(optimizer_section(record)) if optimizer_section(record) else {}
    training = record.recipe.get("training")
    filled = {"training": training | {"optimizer": section}} if isinstance(training, dict) and section else {}
    return [*_flat(record.recipe | filled, ""), *rows]


def optimizer_section(record: Record) -> dict[str, Any]:
    """Returns the optimizer of the recipe with its options; empty where it has none."""
    training = record.recipe.get("training")
    section = training.get("optimizer") if isinstance(training, dict) else None
    return section if isinstance(section, dict) else {}


def _statistics(values: Sequence[float]) -> Statistics | None:
    if not values:
        return None
    return Statistics(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _empty_panel(record: Record) -> Panel:
    task, model = record.task, record.model
    scored = record.data.get(task.split)
    return Panel(
        task=task.name,
        split=task.split,
        metric=task.metric,
        positive=task.positive,
        model=model.name,
        layers=model.layers,
        protocol=protocol_name(record),
        partial=is_partial(record),
        rows=scored.rows if scored else 0,
        data=_own_data(record) if task.name == _OWN_DATA else "",
        lines=(),
    )


def _own_data(record: Record) -> str:
    """Returns the scored file and a hash of its content, so that two files of one name are two data sets.

    Where rows are held out the seed decides which; then the sign is of what all seeds share.
    """
    scored = record.data.get(record.task.split)
    if scored is None:
        return ""
    sign: Any = scored.sha256
    if record.task.split == "holdout":
        rows = sum(fingerprint.rows for fingerprint in record.data.values())
        sign = [rows, record.task.kind, record.task.labels, record.recipe.get("task")]
    return f"{scored.source.removeprefix('file:')}, {hash_json(sign)[:6]}"


def _lines(records: Sequence[Record], told: Mapping[str, Collection[str]]) -> tuple[Line, ...]:
    groups: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        same = [(key, value) for key, value in traits(record) if not says_how_far(key)]
        groups[record.optimizer, repr(same)].append(record)
    by_optimizer: defaultdict[str, list[Line]] = defaultdict(list)
    for (optimizer, _), alike in groups.items():
        for members in _on_one_path(alike):
            by_optimizer[optimizer].append(Line(optimizer, "", 0, members, _points(members)))
    return tuple(line for name, lines in sorted(by_optimizer.items()) for line in _labelled(name, lines, told[name]))


def says_how_far(key: str) -> bool:
    """Returns whether a setting is a target sparsity, which the points show already."""
    return key.rpartition(".")[2] in _SPARSITIES and not key.startswith(_OPTIMIZER)


def _on_one_path(records: Sequence[Record]) -> list[tuple[Record, ...]]:
    """Splits iterative runs whose rounds differ: 30 % after 10 % and 20 % is another model than 30 % at once.

    A run that only stopped earlier stays with the others, and so do runs without rounds.
    """
    paths: list[tuple[list[Any], list[Record]]] = []
    for record in sorted(records, key=lambda record: (-len(_rounds(record)), record.seed, record.digest)):
        rounds = _rounds(record)
        home = next((members for path, members in paths if path[: len(rounds)] == rounds), None)
        if home is None:
            paths.append((rounds, home := []))
        home.append(record)
    return [tuple(sorted(members, key=lambda record: (record.seed, record.digest))) for _, members in paths]


def _rounds(record: Record) -> list[Any]:
    if record.protocol != "iterative":
        return []
    return next((value for key, value in traits(record) if key.endswith("sparsities") and isinstance(value, list)), [])


def _points(records: Sequence[Record]) -> tuple[Point, ...]:
    runs: defaultdict[tuple[float, str], list[tuple[Record, Stage]]] = defaultdict(list)
    for record in records:
        for stage in record.stages:
            runs[stage.target_sparsity, stage.name].append((record, stage))
    ordered = sorted(runs.items(), key=lambda item: item[0][0])  # stable: stages of one sparsity keep their order
    stages = Counter(target for target, _ in runs)
    return tuple(Point(name, target, tuple(members), alone=stages[target] == 1) for (target, name), members in ordered)


def _labelled(optimizer: str, lines: Sequence[Line], told: Collection[str]) -> list[Line]:
    settings = [dict(traits(line.records[0])) for line in lines]
    named = label_lines(optimizer, settings, told)
    return [replace(lines[i], label=label, variant=variant) for variant, (i, label) in enumerate(named)]


def _flat(value: Any, path: str) -> list[Trait]:
    if not isinstance(value, dict):
        return [(path, value)]
    kept = sorted((key, inner) for key, inner in value.items() if key not in _NOT_A_TRAIT or (path and key == "name"))
    return [trait for key, inner in kept for trait in _flat(inner, f"{path}.{key}" if path else key)]
