"""What is measured on every stage."""

import time

from trainflat.evaluation import (
    main_score,
    matrix_zeros,
    measure_flatness,
    measure_int8,
    measure_latency,
    measure_sizes,
    measure_trained_int8,
    objective_on,
    predictions_of,
)
from trainflat.protocols import Bench, Produced
from trainflat.protocols.bench import derive_seed
from trainflat.recipe import FlatnessOptions, Int8Options, Recipe
from trainflat.records import run as record


def measure(bench: Bench, produced: Produced, recipe: Recipe) -> record.Stage:
    """The stage as it goes into the record."""
    if produced.masks is not None:
        produced.masks.check(bench.model)
    started = time.perf_counter()
    predictions = {n: predictions_of(bench.model, s, bench.encoder.tokenizer) for n, s in bench.evaluation.items()}
    scores = {name: bench.task.score(bench.evaluation[name], found) for name, found in predictions.items()}
    _, answers = main_score(bench.task, bench.evaluation[bench.task.split], predictions[bench.task.split])
    seconds = time.perf_counter() - started
    flatness = _flatness(bench, produced, recipe.evaluation.flatness)
    int8 = _int8(bench, recipe.evaluation.int8)
    options = recipe.evaluation.latency
    shapes = [(b, t) for b in options.batches for t in options.lengths if t <= bench.encoder.max_length]
    latency = [measure_latency(bench.model, b, t, repeats=options.repeats) for b, t in shapes] if bench.writes else []
    return record.Stage(
        name=produced.plan.name,
        target_sparsity=_target(produced),
        scores=scores,
        sizes=measure_sizes(bench.model, produced.masks),
        matrices=matrix_zeros(bench.model),
        flatness=flatness,
        int8=int8,
        answers=answers,
        training=produced.training,
        timing=record.Timing(train_seconds=produced.seconds, evaluate_seconds=seconds, latency=latency),
    )


def _target(produced: Produced) -> float:
    if produced.plan.open and produced.masks is not None:
        return produced.masks.sparsity
    return produced.plan.sparsity


def _flatness(bench: Bench, produced: Produced, options: FlatnessOptions | None) -> dict[str, float]:
    if options is None:
        return {}
    objective = objective_on(
        bench.model,
        bench.train_split,
        bench.encoder.tokenizer,
        rows=options.rows,
        seed=derive_seed(bench.seed, "flatness rows"),
        masks=produced.masks if options.surviving else None,
        progress=bench.progress,
    )
    seed = derive_seed(bench.seed, "flatness")
    return {k: v for found, _ in measure_flatness(objective, options.measures, seed) for k, v in found.items()}


def _int8(bench: Bench, options: Int8Options | None) -> record.Int8 | None:
    if options is None and bench.quantizer is None:
        return None
    bench.progress.say("rounding a copy to int8 and scoring it")
    if bench.quantizer is not None:  # the copy that training was for, whatever else could be made
        return measure_trained_int8(bench.task, bench.quantizer, bench.evaluation, bench.encoder.tokenizer)
    assert options is not None
    return measure_int8(bench.task, bench.model, bench.evaluation, bench.encoder.tokenizer, **options.model_dump())
