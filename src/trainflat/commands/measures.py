"""Measures every stage of a run."""

import time

from trainflat.core.rng import derive_seed
from trainflat.evaluation import (
    main_score,
    matrix_zeros,
    measure_flatness,
    measure_int8,
    measure_latency,
    measure_sizes,
    measure_trained_int8,
    predictions_of,
)
from trainflat.evaluation.behaviour import Behaviour
from trainflat.protocols import Produced, Workspace
from trainflat.protocols.teaching import OWN
from trainflat.recipe import FlatnessOptions, Int8Options, Recipe
from trainflat.records import run as record


def measure(workspace: Workspace, produced: Produced, recipe: Recipe, behaviour: Behaviour) -> record.Stage:
    """Measures a stage, as it goes into the record."""
    task, tokenizer, model = workspace.task, workspace.tokenizer, produced.model
    if produced.masks is not None:
        produced.masks.check(model)
    started = time.perf_counter()
    predictions = {name: predictions_of(model, split, tokenizer) for name, split in workspace.evaluation.items()}
    scores = {name: task.score(workspace.evaluation[name], found) for name, found in predictions.items()}
    main, answers = main_score(task, workspace.evaluation[task.split], predictions[task.split])
    seconds = time.perf_counter() - started
    flatness = _flatness(workspace, produced, recipe.evaluation.flatness)
    if behaviour.original is not None and behaviour.original.name == produced.plan.name == OWN:
        behaviour.original.keep(predictions[task.split])
    behaves = behaviour.of(model, predictions[task.split])
    int8 = _int8(workspace, produced, recipe.evaluation.int8, behaviour)
    options, longest = recipe.evaluation.latency, workspace.encoder.max_length
    shapes = [(b, t) for b in options.batches for t in options.lengths if t <= longest and workspace.writes]
    return record.Stage(
        name=produced.plan.name,
        target_sparsity=_target(produced),
        scores=scores,
        sizes=measure_sizes(model, produced.masks),
        matrices=matrix_zeros(model),
        flatness=flatness,
        int8=int8,
        **behaves,
        structure=produced.structure,
        answers=answers,
        without=main.without,
        training=produced.training,
        timing=record.Timing(
            train_seconds=produced.seconds,
            evaluate_seconds=seconds,
            latency=[measure_latency(model, b, t, repeats=options.repeats) for b, t in shapes],
            predicted_seconds=produced.predicted_seconds,
        ),
    )


def _target(produced: Produced) -> float:
    if produced.plan.open and produced.structure is not None:
        return produced.structure.sparsity
    if produced.plan.open and produced.masks is not None:
        return produced.masks.sparsity
    return produced.plan.sparsity


def _flatness(workspace: Workspace, produced: Produced, options: FlatnessOptions | None) -> dict[str, float]:
    if options is None:
        return {}
    masks = produced.masks if options.surviving else None
    objective = workspace.objective(produced.model, "flatness rows", options.rows, masks=masks)
    seed = derive_seed(workspace.seed, "flatness")
    return {k: v for found, _ in measure_flatness(objective, options.measures, seed) for k, v in found.items()}


def _int8(
    workspace: Workspace, produced: Produced, options: Int8Options | None, behaviour: Behaviour
) -> record.Int8 | None:
    task, rows, tokenizer = workspace.task, workspace.evaluation, workspace.tokenizer
    if options is None and produced.quantizer is None:
        return None
    workspace.progress.say("rounding a copy to int8 and scoring it")
    if produced.quantizer is not None:  # the copy that training was for, whatever else could be made
        return measure_trained_int8(task, produced.quantizer, rows, tokenizer, behaviour)
    assert options is not None
    return measure_int8(task, produced.model, rows, tokenizer, **options.model_dump(), behaviour=behaviour)
