"""Renders what is shown as a page: everything in one file, which asks for nothing else."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from trainflat.core.formatting import plural
from trainflat.report.drawings import Map, drawings
from trainflat.report.elements import Facts, Figure, Rows, Sentences, Shown, Source, Table
from trainflat.report.inline import Sheet
from trainflat.report.notes import notes
from trainflat.report.palette import DARK, HEAT_DARK, HEAT_LEVELS, HEAT_LIGHT, LIGHT, heat_scale
from trainflat.report.panels import Panel
from trainflat.report.sections.base import Results
from trainflat.report.surfaces import plotly, surface_data, with_surfaces
from trainflat.report.verdict import Verdict, verdict
from trainflat.report.words import DASH, percent

_KINDS = {"figure": Figure, "table": Table, "facts": Facts, "sentences": Sentences, "source": Source, "heatmap": Map}


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
        title,
        "Trained flat, then compressed",
        Markup(lead),
        sections,
        facts=facts,
        warnings=notes(results.panels),
        verdicts=[found for panel in results.panels if (found := verdict(panel))],
    )


def render(
    title: str,
    heading: str,
    lead: Markup,
    sections: Sequence[Shown],
    *,
    facts: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
) -> str:
    """Returns a page as HTML.

    Args:
        title: Of the document.
        heading: On the page.
        lead: What it is about.
        sections: What it shows; those without entries are left out.
        facts: Names and values below the lead.
        warnings: What to know before comparing.
        verdicts: What to do, before all else.
    """
    kept = [section for section in sections if section.entries]
    sheet = Sheet()
    drawn = drawings(kept, sheet)
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        heading=heading,
        lead=lead,
        facts=facts or {},
        warnings=warnings,
        verdicts=verdicts,
        sections=kept,
        anchors=_anchors(kept),
        drawings=drawn,
        surfaces={figure.id for figure in with_surfaces(kept)},
        sheet=Markup(sheet.css()),
        levels=HEAT_LEVELS,
        most=max((k + 1 for each in drawn.values() for k, _ in each.choices), default=1),
        script=Markup(_template("page.js")),
    )


def render_surfaces(figures: Sequence[Figure], mark: str) -> str:
    """Returns the page of surfaces that can be turned as HTML; ``mark`` says that a report wrote it."""
    return (
        _environment()
        .get_template("surfaces.html")
        .render(
            title="trainflat report: loss surfaces",
            mark=mark,
            figures=figures,
            data={figure.id: surface_data(figure) for figure in figures},
            plotly=plotly(),
            script=Markup(_template("surfaces.js")),
        )
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


def _themes() -> dict[str, dict[str, str]]:
    colors = {"light": (LIGHT, heat_scale(HEAT_LIGHT)), "dark": (DARK, heat_scale(HEAT_DARK))}
    return {
        theme: {f"series-{k}": color for k, color in enumerate(series)} | {f"heat-{k}": c for k, c in enumerate(heat)}
        for theme, (series, heat) in colors.items()
    }


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
    found.filters["columns"] = _columns
    found.tests |= {name: _is_a(kind) for name, kind in _KINDS.items()}
    found.globals |= {"style": Markup(_template("page.css")), "themes": _themes(), "dash": DASH}
    return found


def _is_a(kind: type[Any]) -> Any:
    return lambda part: isinstance(part, kind)


def _template(name: str) -> str:
    return files("trainflat.report").joinpath("templates", name).read_text(encoding="utf8")
