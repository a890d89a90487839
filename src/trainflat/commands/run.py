"""Runs a recipe: task, model, protocol, measures, record."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from trainflat.commands.claims import begun_alike, claim_models, environment_here, notes, read_claim, require_claim
from trainflat.commands.measures import measure
from trainflat.commands.prepare import AnyRecipe, Overrides, Prepared, prepare, read_job
from trainflat.commands.run_folder import opened, require_whole
from trainflat.commands.teaching import score_teacher
from trainflat.core.formatting import plural
from trainflat.core.processes import is_first_process, process_count
from trainflat.core.progress import Progress
from trainflat.evaluation.behaviour import Behaviour
from trainflat.models import meet, model_info
from trainflat.protocols import Produced, Workspace
from trainflat.recipe import Recipe
from trainflat.records import run as record
from trainflat.records.run import Record
from trainflat.tasks.base import Task

_NEXT_TO_ALL = 0.99  # pruned


def run(
    recipe: AnyRecipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    progress: Progress | None = None,
    overrides: Overrides = (),
    shared: Mapping[str, Path] | None = None,
) -> Record:
    """Trains, prunes, measures and records; continues where an earlier call was interrupted.

    Args:
        recipe: A file, the name of a packaged recipe, or the recipe itself.
        data: Folder with the task's files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        out: The run's folder is made in here, named by the recipe's hash.
        progress: Shows what happens.
        overrides: ``{"training.epochs": 2}`` or ``["training.epochs=2"]``.
        shared: Folders of other runs, by the name of a stage that they trained alike: a finished one is taken from
            there if data, models and environment were the same. See :func:`trainflat.grid`, which finds them.

    Returns:
        The record that is now in the run's folder.

    Raises:
        InputError: something given cannot be used; see ``trainflat.core.errors``.
    """
    job, progress = read_job(recipe, data, out, overrides), progress or Progress()
    _note(job.task.notes, progress)
    with opened(job.folder, job.recipe, job.task) as finished:
        if finished is not None:
            progress.say(f"{job.folder} is complete: nothing to do.")
            return finished
        _note(notes(job.folder) if is_first_process() else (), progress)
        return _carry_out(prepare(job, weights=True), progress, shared or {})


def _note(said: Iterable[str], progress: Progress) -> None:
    for note in said:
        progress.say(f"note: {note}")


def _carry_out(prepared: Prepared, progress: Progress, shared: Mapping[str, Path]) -> Record:
    workspace, teacher = _workspace(prepared, progress), prepared.teacher
    info, folder = model_info(workspace.encoder), prepared.folder
    if workspace.writes:
        claim_models(folder, workspace.encoder, info.weights_sha256, teacher, prepared.sources)
    if process_count() == 1:  # else all processes would have to find the same
        alike = {name: other for name, other in shared.items() if begun_alike(folder, other)}
        workspace = replace(workspace, shared=alike)
    taught_by = None if teacher is None else score_teacher(teacher, workspace)
    if prepared.note:
        progress.say(prepared.note)
    behaviour = prepared.behaviour.behaviour(prepared.recipe, workspace)
    stages = [_finish(workspace, produced, prepared.recipe, behaviour) for produced in prepared.protocol.run(workspace)]
    result = _record(prepared, info, taught_by, stages)
    workspace.store.tidy()
    if workspace.writes:
        require_whole(folder, prepared.recipe, result)
        environments = read_claim(folder).environments
        result = result.model_copy(update={"environments": environments if len(environments) > 1 else []})
        result.save(folder)
    return result


def _workspace(prepared: Prepared, progress: Progress) -> Workspace:
    """Encodes the rows, and lets model and teacher read some of them."""
    recipe, task, encoder, teacher = prepared.recipe, prepared.task, prepared.encoder, prepared.teacher
    assert encoder is not None, "weights were asked for"
    _note([encoder.note] if encoder.note else [], progress)
    train, evaluation = task.encode(encoder.tokenizer, recipe.training.max_length)
    meet(encoder, train.rows, learns=True)
    for split in evaluation.values():
        meet(encoder, split.rows)
    if teacher is not None:
        meet(replace(teacher, tokenizer=encoder.tokenizer), train.rows)
    return Workspace(
        encoder,
        task,
        train,
        evaluation,
        recipe.training,
        prepared.folder,
        recipe.seed,
        is_first_process(),
        progress,
        None if teacher is None else teacher.model,
    )


def _finish(workspace: Workspace, produced: Produced, recipe: Recipe, behaviour: Behaviour) -> record.Stage:
    """Measures a stage and puts it on disk, unless an earlier call did."""
    known = workspace.store.measured(produced.plan)
    if known is None:
        measured = measure(workspace, produced, recipe, behaviour)
        if workspace.writes:
            require_claim(workspace.folder)
        known = workspace.store.commit(produced, measured, workspace.tokenizer)
    main = known.scores[workspace.task.split][workspace.task.metric]
    left = known.structure
    gone = f"{known.sizes.encoder_sparsity:.0%} of the encoder is zero{_emptied(known, _scope_of(recipe))}"
    if left is not None:
        gone = f"{left.sparsity:.0%} of the layers' parameters are gone, {left.multiply_adds:.0%} of the work is left"
    scored = f"{workspace.task.score_name} {main:z.1f} on {workspace.task.split}{_in_int8(known, workspace.task)}"
    workspace.progress.say(f"{known.name}: {scored}, {gone}")
    for remark in known.remarks():
        workspace.progress.say(f"{known.name}: {remark}")
    return known


def _in_int8(stage: record.Stage, task: Task) -> str:
    return "" if stage.int8 is None else f" (int8: {stage.int8.scores[task.split][task.metric]:z.1f})"


def _emptied(stage: record.Stage, scope: str = "protocol.scope") -> str:
    """Warns of a matrix that a global ranking emptied: whatever follows it sees no input."""
    gone = [m.name for m in stage.matrices if m.zeros >= _NEXT_TO_ALL * m.entries]
    if not gone or stage.target_sparsity >= _NEXT_TO_ALL:
        return ""
    several = f" and {plural(len(gone) - 1, 'other matrix', 'other matrices')}" if len(gone) > 1 else ""
    advice = f": {scope}=layer would leave each its share" if scope else ""
    return f"; next to nothing is left of {gone[0]}{several}{advice}"


def _scope_of(recipe: Recipe) -> str:
    """Returns the recipe key of the ranking's scope; empty where nothing is ranked by matrices."""
    gate = recipe.protocol.options.get("gate")
    if gate is None:
        return "protocol.scope"
    return "protocol.gate.scope" if "scope" in gate.options else ""


def _record(
    prepared: Prepared, info: record.ModelInfo, teacher: record.TeacherInfo | None, stages: list[record.Stage]
) -> Record:
    recipe, task = prepared.recipe, prepared.task
    return Record(
        name=recipe.name,
        recipe=recipe.resolved(),
        recipe_hash=recipe.hash,
        seed=recipe.seed,
        protocol=recipe.protocol.name,
        optimizer=recipe.training.optimizer.name,
        task=record.TaskInfo(
            name=task.name,
            kind=task.head.kind,
            split=task.split,
            metric=task.metric,
            labels=list(task.head.labels),
            positive=task.positive,
            notes=list(task.notes),
        ),
        model=info,
        teacher=teacher,
        data=task.fingerprints,
        environment=environment_here(),
        stages=stages,
    ).sealed()
