"""A plan as people read it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainflat.core.formatting import plural

if TYPE_CHECKING:
    from trainflat.commands.prepare import Prepared

_CLASSES = 20  # names of classes that are shown
_UNSEEN = " (not looked at: the hub cannot be reached)"


def print_plan(plan: "Prepared") -> None:
    """Prints what would be done, stage by stage, and the files that would be left."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(show_header=False)
    for key, value in _facts(plan):
        table.add_row(key, escape(value))
    for note in plan.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    Console().print(table)
    for line in _lines(plan):
        console.print(escape(line))


def _facts(plan: "Prepared") -> Iterator[tuple[str, str]]:
    recipe, training = plan.recipe, plan.recipe.training
    about = "" if plan.exact else "about "
    passes = plan.steps * training.passes_per_step
    yield "recipe", f"{recipe.name}, hash {recipe.hash[:10]}, seed {recipe.seed}"
    yield from _task_facts(plan)
    yield "model", _model(plan)
    yield "optimizer", _options(training.optimizer.section())
    yield from _features(plan)
    yield "protocol", _options(plan.protocol_options)
    yield from _curve(plan)
    yield "int8", _int8(plan)
    yield from _behaviour(plan)
    yield "trainings", _trainings(plan)
    each = f"{plural(training.passes_per_step, 'forward and backward pass', 'forward and backward passes')} each"
    yield "steps", f"{about}{plan.steps} in all, {each}: {plural(passes, 'pass', 'passes', form='.0f')}"
    yield "folder", str(plan.folder)


def _trainings(plan: "Prepared") -> str:
    about, steps, training = "" if plan.exact else "about ", plan.stage_steps, plan.recipe.training
    if len(set(steps.values())) <= 1:
        epochs = f"{plural(training.epochs, 'epoch')} of batch {training.batch_size}"
        return f"{plan.trainings} of {about}{plural(plan.steps_per_training, 'step')} ({epochs})"
    each = (f"{name} {about}{plural(count, 'step')}" for name, count in steps.items())
    return f"{', '.join(each)} (of batch {training.batch_size})"


def _curve(plan: "Prepared") -> Iterator[tuple[str, str]]:
    if plan.curve is not None:
        name, points = plan.curve
        unit = "%" if name == "sparsity" else ""
        told = [f"{100 * v if unit else v:.4g}{unit} at {step}" for step, v in points]
        bars = "".join("▁▂▃▄▅▆▇█"[min(int(8 * v / (points[-1][1] or 1)), 7)] for _, v in points)
        yield f"{name} by step", f"{bars}  {', '.join(told)}"


def _task_facts(plan: "Prepared") -> Iterator[tuple[str, str]]:
    rows = ", ".join(f"{name} {count}" for name, count in plan.evaluation_rows.items())
    yield "task", f"{plan.recipe.task.name}: {plural(plan.train_rows, 'training row')}; {rows}"
    if plan.texts:
        yield "text", f"column{'s' if len(plan.texts) > 1 else ''} {' and '.join(plan.texts)}"
    yield "learned", _learned(plan)
    yield "main score", f"{_metric(plan)} on {plan.task.split}"
    partial = ", ".join(plan.partial) + ": not comparable with published figures"
    yield "partial splits", partial if plan.partial else "none"


def _metric(plan: "Prepared") -> str:
    task, classes = plan.task, len(plan.task.head.labels)
    if task.metric != "f1":
        return task.metric
    macro = f"f1, mean over {classes} classes" if classes > 2 else task.metric
    return f"f1 of the class {task.positive}" if task.positive else macro


def _learned(plan: "Prepared") -> str:
    kind, labels = plan.task.head.kind, plan.task.head.labels
    if kind != "classification":
        return {"regression": "regression: a number", "spans": "spans: where the answer begins and ends"}[kind]
    more = len(labels) - _CLASSES
    names = ", ".join(labels[:_CLASSES]) + (f" and {more} more" if more > 0 else "")
    return f"classification: {plural(len(labels), 'class', 'classes')}: {names}"


def _model(plan: "Prepared") -> str:
    model = plan.recipe.model
    layers = f", first {plural(model.layers, 'layer')}" if model.layers else ""
    return model.name + layers + ("" if plan.encoder is not None else _UNSEEN)


def _features(plan: "Prepared") -> Iterator[tuple[str, str]]:
    """Yields a line for each feature that a recipe may have."""
    for key, (given, outlook) in plan.features.items():
        unseen = (
            " (not looked at: the hub cannot be reached)" if key == "distillation" and not plan.teacher_seen else ""
        )
        told = _options(given) if isinstance(given, dict) else "none" if given is None else str(given)
        yield key, told + (f": {'' if plan.exact else 'about '}{outlook}" if outlook else "") + unseen


def _int8(plan: "Prepared") -> str:
    options = plan.recipe.evaluation.int8
    if plan.recipe.training.quantization is not None:
        return "the copy of every stage that its training was for is scored too"
    return "not scored" if options is None else f"a copy of every stage is scored too: {_options(options.model_dump())}"


def _behaviour(plan: "Prepared") -> Iterator[tuple[str, str]]:
    loyalty, checklist, suite = plan.recipe.evaluation.loyalty, plan.recipe.evaluation.checklist, plan.behaviour.suite
    if loyalty is not None:
        yield "loyalty", f"every stage's answers are compared with those of {loyalty.to}, base {loyalty.base}"
    if checklist is not None and suite is not None:
        drawn = suite.sample(checklist.cases, checklist.seed)
        asked, texts = plural(len(drawn), "case", form=","), sum(len(case.examples) for case in drawn)
        yield "checklist", f"{suite.name}: {asked} with {plural(texts, 'text', form=',')}, put to every stage"


def _options(section: dict[str, object]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in section.items())


def _value(value: object) -> str:
    """Returns an inner section as its name and, in parentheses, the options that are set."""
    if not isinstance(value, dict):
        return str(value)
    rest = {key: inner for key, inner in value.items() if key != "name" and inner is not None}
    return f"{value.get('name', '')} ({_options(rest)})"


def _lines(plan: "Prepared") -> Iterator[str]:
    for stage in plan.stages:
        yield f"  {stage.name:<16} {'trained' if stage.trained else 'evaluated only'}"
    yield "files:"
    for name in plan.files:
        yield f"  {name}"
    if plan.note:
        yield plan.note
