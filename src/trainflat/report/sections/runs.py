"""Machine, data and recipe behind every number."""

import json

from trainflat.core.formatting import plural
from trainflat.records.run import ModelInfo, Record
from trainflat.report.elements import Entry, Facts, Source, Table
from trainflat.report.panels import is_partial
from trainflat.report.sections.base import Results, Section
from trainflat.report.words import DASH, metric_name, task_name


class Runs(Section):
    """One entry per run."""

    title = "Runs"
    anchor = "runs"
    about = "Machine, data and recipe behind every number."
    folded = True
    in_files = False

    def entries(self, results: Results) -> list[Entry]:
        lines = [line for panel in results.panels for line in panel.lines]
        return [_entry(record, line.label) for line in lines for record in line.records]


def _entry(record: Record, label: str) -> Entry:
    task, model = task_name(record.task.name), record.model
    data = [
        {
            "Split": name,
            "Rows": f"{split.rows:,}",
            "Source": split.source,
            "SHA-256": split.sha256,
            "Partial": "yes" if split.partial else "no",
        }
        for name, split in sorted(record.data.items())
    ]
    facts = {
        "Name": record.name,
        "Digest": record.digest,
        "Recipe hash": record.recipe_hash,
        "Starting weights": _weights(model),
        **_teacher(record),
    }
    return Entry(
        f"{task} · {model.name} · {record.protocol} · {label} · seed {record.seed}",
        [
            Facts(facts),
            Table(data, title="Data"),
            Facts({str(key): str(value) for key, value in record.environment.items()}, "Environment"),
            Source(json.dumps(record.recipe, indent=1, sort_keys=True, ensure_ascii=False), "Recipe"),
        ],
        partial=is_partial(record),
    )


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
