"""The page: everything in one file, which asks for nothing else."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from trainflat.core.formatting import plural
from trainflat.records.landscape import Landscape
from trainflat.records.run import ModelInfo, Record
from trainflat.report.differences import ABOUT as ABOUT_DIFFERENCES
from trainflat.report.differences import differences
from trainflat.report.flatness import ABOUT, ABOUT_PUBLISHED, comparable, flatness_table, measured
from trainflat.report.int8 import ABOUT as ABOUT_INT8
from trainflat.report.int8 import about_published, int8_table, metric
from trainflat.report.landscape_panels import landscape_groups
from trainflat.report.notes import PARTIAL, notes
from trainflat.report.palette import DARK, HEAT_DARK, HEAT_LIGHT, LIGHT, Palette
from trainflat.report.panels import Panel, is_partial, make_panels
from trainflat.report.published import published, reference_sparsity
from trainflat.report.tables import PLAIN, cost_table, score_table
from trainflat.report.web import Group, curve_plots, flatness_plots, int8_plots, score_plot, zero_plots
from trainflat.report.words import DASH, metric_name, percent, task_name


def render(records: Sequence[Record], landscapes: Sequence[Landscape] = ()) -> str:
    """The whole page as HTML. Same records and landscapes, same bytes."""
    panels = make_panels(records)
    sections = _sections(panels, landscapes)
    return (
        environment()
        .get_template("report.html")
        .render(
            headline=_headline(panels),
            notes=notes(panels),
            plain=PLAIN,
            panels=panels,
            sections=sections,
            figures={
                group.id: {"plots": group.plots, "active": group.active} for _, groups in sections for group in groups
            },
            score_table=score_table,
            differences=differences,
            about_differences=ABOUT_DIFFERENCES,
            cost_table=cost_table,
            runs=[_run(record, line.label) for panel in panels for line in panel.lines for record in line.records],
            themes=theme_colors(),
            plotly=plotly_source(),
        )
    )


def _sections(panels: Sequence[Panel], landscapes: Sequence[Landscape]) -> list[tuple[str, list[Group]]]:
    palette = Palette(record.optimizer for panel in panels for record in panel.records)
    numbered = list(enumerate(panels))
    found = [
        ("Score against sparsity", [_scores(k, panel, palette) for k, panel in numbered]),
        ("Flatness", [_flatness(k, panel, palette) for k, panel in numbered]),
        ("int8", [_int8(k, panel, palette) for k, panel in numbered]),
        ("Where the zeros are", [_zeros(k, panel) for k, panel in numbered]),
        ("Training curves", [_curves(k, panel, palette) for k, panel in numbered]),
        ("Landscape", landscape_groups(landscapes)),
    ]
    kept = [(title, [group for group in groups if group.plots]) for title, groups in found]
    return [(title, groups) for title, groups in kept if groups]


def _scores(k: int, panel: Panel, palette: Palette) -> Group:
    caption = f"{panel.scored_on}. Lines are means over seeds"
    several = any(len({record.seed for record in line.records}) > 1 for line in panel.lines)
    caption += ", shaded bands one standard deviation to either side." if several else "; here every line is one seed."
    if published(panel):
        caption += (
            " Short bars are published means ± standard deviations, of the same model, task, metric and protocol."
        )
    if reference_sparsity(panel) is not None:
        caption += " The dotted line is the sparsity at which the papers compare this task."
    return Group(f"score-{k}", panel.title, _marked(caption, panel), [score_plot(panel, palette)])


def _flatness(k: int, panel: Panel, palette: Palette) -> Group:
    plots = flatness_plots(panel, palette)
    compared = any(comparable(panel, name) for name in measured(panel))
    caption = f"{ABOUT} Short bars are published means ± standard deviations. {ABOUT_PUBLISHED}" if compared else ABOUT
    return Group(f"flatness-{k}", panel.title, _marked(caption, panel), plots, rows=flatness_table(panel))


def _int8(k: int, panel: Panel, palette: Palette) -> Group:
    caption = f"{ABOUT_INT8} Plots show {metric_name(metric(panel), panel.positive)}."
    if told := about_published(panel):
        caption += f" Short bars are published means ± standard deviations. {told}"
    plots, rows = int8_plots(panel, palette), int8_table(panel)
    return Group(f"int8-{k}", panel.title, _marked(caption, panel), plots, rows=rows)


def _zeros(k: int, panel: Panel) -> Group:
    choices, active, plots = zero_plots(panel)
    caption = (
        "Share of zeros in every prunable matrix, in percent, mean over seeds. Layers are counted from 0, as in "
        "parameter names; a matrix behind the last layer stands in the last column. Colours span the layers' values."
    )
    return Group(f"zeros-{k}", panel.title, _marked(caption, panel), plots, choices, active, broad=True)


def _curves(k: int, panel: Panel, palette: Palette) -> Group:
    choices, active, plots = curve_plots(panel, palette)
    caption = "One line per seed, while the model of the chosen sparsity was trained."
    if len(plots) > 1:
        caption += " ‖ε‖ is how far the weights stood displaced for the second gradient, the loss gap what that added."
        caption += " Were they near zero, the run would not have been a flat one."
    return Group(f"curves-{k}", panel.title, _marked(caption, panel), plots, choices, active)


def _marked(caption: str, panel: Panel) -> str:
    return f"{caption} {PARTIAL[0].upper()}{PARTIAL[1:]}." if panel.partial else caption


def _headline(panels: Sequence[Panel]) -> dict[str, str]:
    records = [record for panel in panels for record in panel.records]
    tasks = list(dict.fromkeys(panel.task_title for panel in panels))
    models = list(dict.fromkeys(panel.model for panel in panels))
    optimizers = list(dict.fromkeys(record.optimizer for record in records))
    seeds = sorted({record.seed for record in records})
    sparsities = sorted({target for panel in panels for target in panel.targets})
    return {
        "Runs": plural(len(records), "run"),
        "Tasks": ", ".join(tasks),
        "Models": ", ".join(models),
        "Optimizers": ", ".join(optimizers),
        "Seeds": ", ".join(map(str, seeds)),
        "Sparsities": ", ".join(map(percent, sparsities)),
    }


def _run(record: Record, label: str) -> dict[str, Any]:
    model = record.model
    return {
        "title": f"{task_name(record.task.name)} · {model.name} · {record.protocol} · {label} · seed {record.seed}",
        "partial": is_partial(record),
        "facts": {
            "Name": record.name,
            "Digest": record.digest,
            "Recipe hash": record.recipe_hash,
            "Starting weights": _weights(model),
            **_teacher(record),
        },
        "data": [
            {
                "Split": name,
                "Rows": f"{f.rows:,}",
                "Source": f.source,
                "SHA-256": f.sha256,
                "Partial": "yes" if f.partial else "no",
            }
            for name, f in sorted(record.data.items())
        ],
        "environment": {str(key): str(value) for key, value in record.environment.items()},
        "recipe": json.dumps(record.recipe, indent=1, sort_keys=True, ensure_ascii=False),
    }


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
    """Where a student became the teacher."""
    steps = {stage.name: stage.training.teacher_steps for stage in record.stages if stage.training is not None}
    told = [f"{name} after step {', '.join(map(str, found))}" for name, found in steps.items() if found]
    return f"; then the student as it was: {'; '.join(told)}" if told else ""


def theme_colors() -> dict[str, dict[str, str]]:
    """The colours of both themes by the names that figures use."""
    return {"light": _theme(LIGHT, HEAT_LIGHT), "dark": _theme(DARK, HEAT_DARK)}


def _theme(series: Sequence[str], heat: Sequence[str]) -> dict[str, str]:
    return {f"series-{k}": color for k, color in enumerate(series)} | {
        f"heat-{k}": color for k, color in enumerate(heat)
    }


def _columns(table: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in table for name in row))


@cache
def environment() -> Environment:
    """Templates, with what all pages share."""
    found = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["columns"] = _columns
    found.globals |= {
        "style": Markup(_template("report.css")),
        "script": Markup(_template("report.js")),
        "dash": DASH,
    }
    return found


def _template(name: str) -> str:
    return files("trainflat.report").joinpath("templates", name).read_text(encoding="utf8")


@cache
def plotly_source() -> Markup:
    """The library that draws, to be put into a page."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # the library's own text
