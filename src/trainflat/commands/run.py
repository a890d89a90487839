"""The main job as one screen of code: task, model, protocol, measures, record."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainflat.commands.claims import claim_models, environment_here, notes, read_claim, require_claim
from trainflat.commands.measures import measure
from trainflat.commands.refusals import check_encoder, check_gate, check_machine
from trainflat.commands.run_folder import opened, require_whole
from trainflat.commands.teaching import find_teacher, score_teacher
from trainflat.core.formatting import plural
from trainflat.core.processes import is_first_process
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.evaluation import SPEED_NOTE
from trainflat.models import load_encoder, meet, model_info
from trainflat.protocols import Produced, Protocol, Workspace
from trainflat.recipe import Recipe, load_recipe
from trainflat.records import run as record
from trainflat.records.run import Record
from trainflat.tasks.base import Task

_NEXT_TO_ALL = 0.99  # pruned


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    progress: Progress | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Record:
    """Trains, prunes, measures and records; continues where an earlier call was interrupted.

    Args:
        recipe: A file, the name of a packaged recipe, or the recipe itself.
        data: Folder with the task's files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        out: The run's folder is made in here, named by the recipe's hash.
        progress: Is told what happens.
        overrides: ``{"training.epochs": 2}`` or ``["training.epochs=2"]``.

    Returns:
        The record that is now in the run's folder.

    Raises:
        InputError: something given cannot be used; see ``trainflat.core.errors``.
    """
    recipe = load_recipe(recipe, overrides)
    progress = progress or Progress()
    task = recipe.task.build(data=data, seed=derive_seed(recipe.seed, "rows"))
    folder = out / recipe.folder_name
    for note in task.notes:
        progress.say(f"note: {note}")
    with opened(folder, recipe, task) as finished:
        if finished is not None:
            progress.say(f"{folder} is complete: nothing to do.")
            return finished
        for note in notes(folder) if is_first_process() else ():
            progress.say(f"note: {note}")
        workspace = _workspace(recipe, task, folder, progress)
        info = model_info(workspace.encoder)
        teacher = find_teacher(recipe, task.head, workspace.encoder)
        if teacher is not None:
            meet(replace(teacher, tokenizer=workspace.encoder.tokenizer), workspace.train_split.rows)
        protocol: Protocol = recipe.protocol.build()
        if workspace.writes:
            claim_models(folder, workspace.encoder, info.weights_sha256, teacher, protocol.sources())
        taught_by = score_teacher(teacher, workspace) if teacher else None
        workspace = replace(workspace, teacher=teacher.model if teacher else None)
        if protocol.unstructured:
            progress.say(SPEED_NOTE)
        stages = [_finish(workspace, produced, recipe) for produced in protocol.run(workspace)]
        result = _record(recipe, task, info, taught_by, stages)
        workspace.store.tidy()
        if workspace.writes:
            require_whole(folder, recipe, result)
            environments = read_claim(folder).environments
            result = result.model_copy(update={"environments": environments if len(environments) > 1 else []})
            result.save(folder)
        return result


def _workspace(recipe: Recipe, task: Task, folder: Path, progress: Progress) -> Workspace:
    name, layers = recipe.model.name, recipe.model.layers
    check_machine(recipe, task, folder)
    check_gate(recipe)
    encoder = load_encoder(name, task.head, layers=layers, seed=derive_seed(recipe.seed, "head"))
    check_encoder(recipe, encoder)
    if encoder.note:
        progress.say(f"note: {encoder.note}")
    train, evaluation = task.encode(encoder.tokenizer, recipe.training.max_length)
    meet(encoder, train.rows, learns=True)
    for split in evaluation.values():
        meet(encoder, split.rows)
    first = is_first_process()
    return Workspace(encoder, task, train, evaluation, recipe.training, folder, recipe.seed, first, progress)


def _finish(workspace: Workspace, produced: Produced, recipe: Recipe) -> record.Stage:
    """Measures a stage and puts it on disk, unless an earlier call did."""
    known = workspace.store.measured(produced.plan)
    if known is None:
        measured = measure(workspace, produced, recipe)
        if workspace.writes:
            require_claim(workspace.folder)
        known = workspace.store.commit(produced, measured, workspace.tokenizer)
    main = known.scores[workspace.task.split][workspace.task.metric]
    zeros = f"{known.sizes.encoder_sparsity:.0%} of the encoder is zero{_emptied(known, _scope_of(recipe))}"
    scored = f"{workspace.task.score_name} {main:z.1f} on {workspace.task.split}{_in_int8(known, workspace.task)}"
    workspace.progress.say(f"{known.name}: {scored}, {zeros}")
    for remark in known.remarks():
        workspace.progress.say(f"{known.name}: {remark}")
    return known


def _in_int8(stage: record.Stage, task: Task) -> str:
    return "" if stage.int8 is None else f" (int8: {stage.int8.scores[task.split][task.metric]:z.1f})"


def _emptied(stage: record.Stage, scope: str = "protocol.scope") -> str:
    """What to know of a matrix that a global ranking left next to nothing of: whatever follows it sees no input."""
    gone = [m.name for m in stage.matrices if m.zeros >= _NEXT_TO_ALL * m.entries]
    if not gone or stage.target_sparsity >= _NEXT_TO_ALL:
        return ""
    several = f" and {plural(len(gone) - 1, 'other matrix', 'other matrices')}" if len(gone) > 1 else ""
    advice = f": {scope}=layer would leave each its share" if scope else ""
    return f"; next to nothing is left of {gone[0]}{several}{advice}"


def _scope_of(recipe: Recipe) -> str:
    """The key that says what competes in a ranking; "" where nothing is ranked by matrices."""
    gate = recipe.protocol.options.get("gate")
    if gate is None:
        return "protocol.scope"
    return "protocol.gate.scope" if "scope" in gate else ""


def _record(
    recipe: Recipe,
    task: Task,
    info: record.ModelInfo,
    teacher: record.TeacherInfo | None,
    stages: list[record.Stage],
) -> Record:
    return Record(
        name=recipe.name,
        recipe=recipe.resolved(),
        recipe_hash=recipe.hash,
        seed=recipe.seed,
        protocol=recipe.protocol.name,
        optimizer=recipe.training.optimizer["name"],
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
