"""Renders what is shown as a page: everything in one file, which asks for nothing else."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from trainflat.core.formatting import plural
from trainflat.report.elements import Facts, Figure, Rows, Sentences, Shown, Source, Table
from trainflat.report.notes import notes
from trainflat.report.palette import DARK, HEAT_DARK, HEAT_LIGHT, LIGHT
from trainflat.report.panels import Panel
from trainflat.report.sections.base import Results
from trainflat.report.web import figure_data, plot_height
from trainflat.report.words import DASH, percent

_KINDS = {"figure": Figure, "table": Table, "facts": Facts, "sentences": Sentences, "source": Source}


def render_report(results: Results, sections: Sequence[Shown]) -> str:
    """Returns the page of a report as HTML. Same results, same bytes."""
    facts = _headline(results.panels) if results.panels else {}
    lead = (
        f"What {facts.pop('Runs')} of <b>trainflat</b> left behind: how well each model does at each sparsity, where "
        "its zeros are, what it weighs and what it cost."
        if facts
        else ""
    )
    title = f"trainflat report: {facts.get('Tasks') or 'loss landscapes'}"
    return render(
        title, "Trained flat, then compressed", Markup(lead), sections, facts=facts, warnings=notes(results.panels)
    )


def render(
    title: str,
    heading: str,
    lead: Markup,
    sections: Sequence[Shown],
    *,
    facts: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """Returns a page as HTML.

    Args:
        title: Of the document.
        heading: On the page.
        lead: What it is about.
        sections: What it shows; those without entries are left out.
        facts: Names and values below the lead.
        warnings: What to know before comparing.
    """
    kept = [section for section in sections if section.entries]
    figures = [figure for section in kept for entry in section.entries for figure in entry.figures]
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        heading=heading,
        lead=lead,
        facts=facts or {},
        warnings=warnings,
        sections=kept,
        anchors=_anchors(kept),
        figures={figure.id: figure_data(figure) for figure in figures},
        themes={"light": _theme(LIGHT, HEAT_LIGHT), "dark": _theme(DARK, HEAT_DARK)},
        plotly=_plotly_source(),
    )


def _anchors(sections: Sequence[Shown]) -> list[str]:
    numbered = [section for section in sections if not section.anchor]
    return [section.anchor or f"section-{numbered.index(section) + 1}" for section in sections]


def _headline(panels: Sequence[Panel]) -> dict[str, str]:
    records = [record for panel in panels for record in panel.records]
    sparsities = sorted({target for panel in panels for target in panel.targets})
    return {
        "Runs": plural(len(records), "run"),
        "Tasks": ", ".join(dict.fromkeys(panel.task_title for panel in panels)),
        "Models": ", ".join(dict.fromkeys(panel.model for panel in panels)),
        "Optimizers": ", ".join(dict.fromkeys(record.optimizer for record in records)),
        "Seeds": ", ".join(map(str, sorted({record.seed for record in records}))),
        "Sparsities": ", ".join(map(percent, sparsities)),
    }


def _theme(series: Sequence[str], heat: Sequence[str]) -> dict[str, str]:
    named = {"series": series, "heat": heat}
    return {f"{name}-{k}": color for name, colors in named.items() for k, color in enumerate(colors)}


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"columns": _columns, "height": plot_height}
    found.tests |= {name: _is_a(kind) for name, kind in _KINDS.items()}
    found.globals |= {
        "style": Markup(_template("page.css")),
        "script": Markup(_template("page.js")),
        "dash": DASH,
    }
    return found


def _is_a(kind: type[Any]) -> Any:
    return lambda part: isinstance(part, kind)


def _template(name: str) -> str:
    return files("trainflat.report").joinpath("templates", name).read_text(encoding="utf8")


@cache
def _plotly_source() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # the library's own text
