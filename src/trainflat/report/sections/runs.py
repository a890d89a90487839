"""Machine, data and recipe behind every number."""

import json
from typing import TypeVar

from trainflat.core.formatting import plural
from trainflat.records.run import ModelInfo, Record
from trainflat.report.elements import Entry, Facts, Part, Source, Table
from trainflat.report.panels import Line, Panel, is_partial
from trainflat.report.sections.base import Results, Section
from trainflat.report.words import DASH, metric_name

T = TypeVar("T")


class Runs(Section):
    """One entry per line, its seeds beside each other."""

    title = "Runs"
    anchor = "runs"
    about = "Machine, data and recipe behind every number."
    folded = True
    in_files = False
    front = False

    def entries(self, results: Results) -> list[Entry]:
        return [_entry(panel, line) for panel in results.panels for line in panel.lines]


def _entry(panel: Panel, line: Line) -> Entry:
    records = line.records
    found: list[Part] = [Table([_run(record) for record in records], title="Seeds")]
    found.append(Table(_unlike(*(row for record in records for row in _data(record))), title="Data"))
    machines = _unlike(*({str(key): str(value) for key, value in record.environment.items()} for record in records))
    found += [Facts(each, "Environment") for each in machines]
    recipes = _unlike(*(record.recipe | {"seed": None} for record in records))
    found += [Source(json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False), "Recipe") for each in recipes]
    return Entry(f"{panel.title} · {line.label}", found, partial=any(map(is_partial, records)))


def _unlike(*found: T) -> list[T]:
    """Returns each value once."""
    return [each for k, each in enumerate(found) if each not in found[:k]]


def _run(record: Record) -> dict[str, str]:
    return {
        "Seed": str(record.seed),
        "Name": record.name,
        "Digest": record.digest,
        "Recipe hash": record.recipe_hash,
        "Starting weights": _weights(record.model),
        **_teacher(record),
    }


def _data(record: Record) -> list[dict[str, str]]:
    return [
        {
            "Split": name,
            "Rows": f"{split.rows:,}",
            "Source": split.source,
            "SHA-256": split.sha256,
            "Partial": "yes" if split.partial else "no",
        }
        for name, split in sorted(record.data.items())
    ]


def _weights(model: ModelInfo) -> str:
    return f"{model.architecture}, {plural(model.parameters, 'parameter', form=',')}, {model.weights_sha256}"


def _teacher(record: Record) -> dict[str, str]:
    if record.teacher is None:
        return {}
    score = record.teacher.scores.get(record.task.split, {}).get(record.task.metric)
    told = DASH if score is None else f"{score:.1f}"
    where = f"{metric_name(record.task.metric, record.task.positive)} on {record.task.split}"
    return {"Teacher": f"{record.teacher.name}: {told}, {where}; {_weights(record.teacher)}{_renewals(record)}"}


def _renewals(record: Record) -> str:
    """Says where a student became the teacher."""
    steps = {stage.name: stage.training.teacher_steps for stage in record.stages if stage.training is not None}
    told = [f"{name} after step {', '.join(map(str, found))}" for name, found in steps.items() if found]
    return f"; then the student as it was: {'; '.join(told)}" if told else ""
