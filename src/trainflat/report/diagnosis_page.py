"""The page of a diagnosis: everything in one file, which asks for nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainflat.core.files import together, write_text
from trainflat.core.formatting import plural
from trainflat.records.diagnosis import Diagnosis, save_diagnoses
from trainflat.report.advice import advice
from trainflat.report.flatness import figure_name
from trainflat.report.marks import refuse_foreign
from trainflat.report.page import environment, plotly_source, theme_colors
from trainflat.report.palette import DASHES, MARKERS
from trainflat.report.web import Group, as_text
from trainflat.report.words import duration, four_digits, metric_name, percent, places, task_name

PAGE = "diagnosis.html"


def write_diagnosis(diagnoses: Sequence[Diagnosis], out: Path) -> Path:
    """Writes ``diagnosis.html`` and ``diagnosis.json``, both or none.

    Args:
        diagnoses: Of one task, in the order in which they are shown.
        out: A folder.

    Returns:
        The page.

    Raises:
        InputError: the folder cannot be written.
    """
    with together(out) as place:
        save_diagnoses(diagnoses, advice(diagnoses), place)
        write_text(place / PAGE, render_diagnosis(diagnoses))
        refuse_foreign(place, out)
    return out / PAGE


def render_diagnosis(diagnoses: Sequence[Diagnosis]) -> str:
    """The page as HTML. Same diagnoses, same bytes."""
    groups = [_curve(diagnoses), *_parts(diagnoses)]
    return (
        environment()
        .get_template("diagnosis.html")
        .render(
            diagnoses=diagnoses,
            task=task_name(diagnoses[0].task),
            names=_columns(diagnoses),
            scores=[_scores(name, one) for name, one in zip(_columns(diagnoses), diagnoses, strict=True)],
            flatness=_flatness(diagnoses),
            advice=advice(diagnoses),
            partial=any(one.partial for one in diagnoses),
            groups=groups,
            figures={group.id: {"plots": group.plots, "active": 0} for group in groups},
            themes=theme_colors(),
            plotly=plotly_source(),
        )
    )


def _scores(name: str, found: Diagnosis) -> dict[str, str]:
    return {
        "Model": name,
        f"{metric_name(found.metric, found.positive)}, {found.split}": f"{found.score:z.1f}",
        "in int8": f"{found.int8.scores[found.split][found.metric]:z.1f}",
        f"on {plural(found.sampled_rows, 'row', form=',')}": f"{found.sampled_score:z.1f}",
        "Zeros of the encoder": percent(found.sparsity, 1),
        "Parameters": f"{found.parameters:,}",
        "Kept within 1 point to": percent(found.kept_to(1.0)),
        "Time": duration(found.seconds),
    }


def _flatness(diagnoses: Sequence[Diagnosis]) -> list[dict[str, str]]:
    """A row per figure, a column per model."""
    rows: dict[str, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for column, found in zip(_columns(diagnoses), diagnoses, strict=True):
        for measured in found.flatness:
            for name, value in measured.values.items():
                rows.setdefault(name, {"Figure": figure_name(name)})[column] = four_digits(value)
                settings[name] = _settings(measured)
    return [row | {"Measure": settings[name]} for name, row in rows.items()]  # last: on a phone the figures come first


def _settings(measured: Any) -> str:
    return ", ".join([measured.name, *(f"{key} {value}" for key, value in measured.options.items())])


def _columns(diagnoses: Sequence[Diagnosis]) -> list[str]:
    return places([one.model for one in diagnoses])


def _curve(diagnoses: Sequence[Diagnosis]) -> Group:
    lines = []
    for k, (name, found) in enumerate(zip(_columns(diagnoses), diagnoses, strict=True)):
        points = [(100 * found.sparsity, found.sampled_score), *((100 * c.sparsity, c.score) for c in found.one_shot)]
        color = f"@series-{k % len(MARKERS)}"
        lines.append(
            {
                "x": [x for x, _ in points],
                "y": [y for _, y in points],
                "name": as_text(name),
                "mode": "lines+markers",
                "line": {"color": color, "width": 2.5, "dash": DASHES[k % len(DASHES)]},
                "marker": {"color": color, "size": 8, "symbol": MARKERS[k % len(MARKERS)]},
                "hovertemplate": f"{as_text(name)}<br>%{{x:g}} %: %{{y:.1f}}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "Sparsity of the encoder (%)"}, "range": [-3, 95]},
        "yaxis": {"title": {"text": as_text(metric_name(diagnoses[0].metric, diagnoses[0].positive))}},
    }
    caption = "The smallest weights of all matrices together set to zero at once; nothing is trained afterwards."
    return Group(
        "one-shot", "One-shot pruning", caption, [{"height": 380, "frames": [{"data": lines, "layout": layout}]}]
    )


def _parts(diagnoses: Sequence[Diagnosis]) -> list[Group]:
    caption = (
        "What the score loses when this part alone is pruned, each of its matrices to the same share; with the "
        "interval that holds the loss in 95 of 100 draws of rows."
    )
    groups = []
    for axis, title in (("layer", "Sensitivity of layers"), ("kind", "Sensitivity by kind of matrix")):
        bars = [
            _bars(k, name, found, axis)
            for k, (name, found) in enumerate(zip(_columns(diagnoses), diagnoses, strict=True))
        ]
        if not any(bar["x"] for bar in bars):
            continue
        layout = {
            "xaxis": {"title": {"text": ""}, "type": "category"},
            "yaxis": {
                "title": {"text": f"points of {as_text(metric_name(diagnoses[0].metric, diagnoses[0].positive))} lost"}
            },
            "barmode": "group",
        }
        groups.append(
            Group(f"parts-{axis}", title, caption, [{"height": 320, "frames": [{"data": bars, "layout": layout}]}])
        )
    return groups


def _bars(k: int, name: str, found: Diagnosis, axis: str) -> dict[str, Any]:
    parts = [s for s in found.sensitivity if s.axis == axis]
    lost = [found.lost(s.cut) for s in parts]
    return {
        "type": "bar",
        "x": [as_text(s.part.replace("_", " ")) for s in parts],
        "y": [each.value for each in lost],
        "error_y": {"type": "data", "array": [each.high - each.value for each in lost], "thickness": 1, "width": 2},
        "name": as_text(name),
        "marker": {"color": f"@series-{k % len(MARKERS)}"},
        "hovertemplate": f"{as_text(name)}<br>%{{x}}: %{{y:.1f}} points<extra></extra>",
    }
