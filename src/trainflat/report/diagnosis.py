"""Renders the page of a diagnosis: advice, scores, compressibility, flatness, environment."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from trainflat.core.files import together, write_text
from trainflat.core.formatting import plural
from trainflat.records.diagnosis import Diagnosis, Measured, save_diagnoses
from trainflat.report.advice import advice
from trainflat.report.elements import Axis, Bars, Entry, Facts, Figure, Line, Plot, Rows, Sentences, Shown, Table
from trainflat.report.marks import refuse_foreign
from trainflat.report.notes import PARTIAL
from trainflat.report.page import render
from trainflat.report.palette import MARKERS
from trainflat.report.words import duration, figure_name, four_digits, metric_name, percent, places, task_name

PAGE = "diagnosis.html"


def write_diagnosis(diagnoses: Sequence[Diagnosis], out: Path) -> Path:
    """Writes ``diagnosis.html`` and ``diagnosis.json``, both or none.

    Args:
        diagnoses: Of one task, in the order in which they are shown.
        out: A folder.

    Returns:
        The page.

    Raises:
        InputError: the folder cannot be written, or a file in it that is to be replaced is somebody else's.
    """
    with together(out) as place:
        save_diagnoses(diagnoses, advice(diagnoses), place)
        write_text(place / PAGE, render_diagnosis(diagnoses))
        refuse_foreign(place, out)
    return out / PAGE


def render_diagnosis(diagnoses: Sequence[Diagnosis]) -> str:
    """Returns the page as HTML. Same diagnoses, same bytes."""
    task, names = task_name(diagnoses[0].task), _names(diagnoses)
    lead = f"What <b>trainflat</b> found in {' and '.join(map(escape, names))}, on {escape(task)}."
    warnings = [f"{PARTIAL[0].upper()}{PARTIAL[1:]}."] if any(one.partial for one in diagnoses) else []
    return render(
        f"trainflat diagnosis: {task}",
        "How flat, how compressible",
        Markup(lead),
        [
            Shown("What we would do", [Entry("", [Sentences(advice(diagnoses))])], "advice"),
            Shown("Scores", [Entry("", [Table([_scores(*each) for each in _named(diagnoses)])])], "scores"),
            _compressibility(diagnoses),
            _flatness(diagnoses),
            Shown(
                "Where it was measured",
                [Entry(name, [_environment(one)]) for name, one in _named(diagnoses)],
                "environment",
                folded=True,
            ),
        ],
        warnings=warnings,
    )


def _compressibility(diagnoses: Sequence[Diagnosis]) -> Shown:
    first = diagnoses[0]
    about = f"Scored on {plural(first.sampled_rows, 'row')} of {first.split}, the same for every cut."
    figures = [_curve(diagnoses), *_parts(diagnoses)]
    return Shown("Compressibility", [Entry(figure.title, [figure]) for figure in figures], "compressibility", about)


def _flatness(diagnoses: Sequence[Diagnosis]) -> Shown:
    about = (
        f"On {plural(diagnoses[0].flatness_rows, 'row')} of the training set, without dropout; of a pruned model only "
        "the surviving weights move. Lower is flatter. No figure says on its own how far a model can be pruned: "
        "compare models of one task and size."
    )
    return Shown("Flatness", [Entry("", [Table(_flatness_rows(diagnoses))])], "flatness", about)


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


def _flatness_rows(diagnoses: Sequence[Diagnosis]) -> Rows:
    """Returns a row per figure, a column per model."""
    rows: dict[str, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for column, found in _named(diagnoses):
        for measured in found.flatness:
            for name, value in measured.values.items():
                rows.setdefault(name, {"Figure": figure_name(name)})[column] = four_digits(value)
                settings[name] = _settings(measured)
    return [row | {"Measure": settings[name]} for name, row in rows.items()]  # last: on a phone the figures come first


def _settings(measured: Measured) -> str:
    return ", ".join([measured.name, *(f"{key} {value}" for key, value in measured.options.items())])


def _environment(found: Diagnosis) -> Facts:
    facts = {"Model": found.model, "Weights": found.weights_sha256}
    facts |= {str(name): str(value) for name, value in found.environment.items()}
    return Facts(facts | {name: f"{plural(one.rows, 'row')} of {one.source}" for name, one in found.data.items()})


def _curve(diagnoses: Sequence[Diagnosis]) -> Figure:
    lines = []
    for k, (name, found) in enumerate(_named(diagnoses)):
        points = [(found.sparsity, found.sampled_score), *((cut.sparsity, cut.score) for cut in found.one_shot)]
        lines.append(
            Line(
                [100 * x for x, _ in points],
                [y for _, y in points],
                name,
                f"series-{k % MARKERS}",
                2.5,
                k,
                k % MARKERS,
                hover="{x:g} %: {y:.1f}",
            )
        )
    across, up = Axis("Sparsity of the encoder (%)", -3, 95), Axis(_metric(diagnoses))
    caption = "The smallest weights of all matrices together set to zero at once; nothing is trained afterwards."
    return Figure("one-shot", "one-shot", "One-shot pruning", [Plot([lines], across, up)], caption)


def _parts(diagnoses: Sequence[Diagnosis]) -> Iterator[Figure]:
    caption = (
        "What the score loses when this part alone is pruned, each of its matrices to the same share; with the "
        "interval that holds the loss in 95 of 100 draws of rows."
    )
    for axis, title in (("layer", "Sensitivity of layers"), ("kind", "Sensitivity by kind of matrix")):
        bars = [_bars(k, name, found, axis) for k, (name, found) in enumerate(_named(diagnoses))]
        if any(each.x for each in bars):
            plot = Plot([bars], y=Axis(f"points of {_metric(diagnoses)} lost"))
            yield Figure(f"parts-{axis}", f"parts-{axis}", title, [plot], caption)


def _bars(k: int, name: str, found: Diagnosis, axis: str) -> Bars:
    parts = [part for part in found.sensitivity if part.axis == axis]
    lost = [found.lost(part.cut) for part in parts]
    return Bars(
        [part.part.replace("_", " ") for part in parts],
        [each.value for each in lost],
        [each.high for each in lost],
        name,
        f"series-{k % MARKERS}",
        "{x}: {y:.1f} points",
    )


def _metric(diagnoses: Sequence[Diagnosis]) -> str:
    return metric_name(diagnoses[0].metric, diagnoses[0].positive)


def _named(diagnoses: Sequence[Diagnosis]) -> list[tuple[str, Diagnosis]]:
    return list(zip(_names(diagnoses), diagnoses, strict=True))


def _names(diagnoses: Sequence[Diagnosis]) -> list[str]:
    return places([one.model for one in diagnoses])
