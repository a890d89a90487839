"""Looks at a fine-tuned model: how flat it is, how well it can be compressed, and what follows from that."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainflat import record
from trainflat.anatomy import matrix_kinds
from trainflat.diagnosis import Cut, Diagnosis, Measured, Sensitivity
from trainflat.errors import InputError
from trainflat.evaluation import (
    main_score,
    measure_flatness,
    measure_sizes,
    objective_on,
    predictions_of,
    sample_split,
    tensor_bytes,
)
from trainflat.margins import Answers, Score
from trainflat.models import Encoder, load_encoder, meet, model_info
from trainflat.params import prunable
from trainflat.progress import Progress
from trainflat.protocols.bench import derive_seed
from trainflat.pruning import MagnitudePruner, Masks, keep_highest
from trainflat.quantization import quantize_dynamic
from trainflat.recipe import build, load_recipe
from trainflat.tasks import TASKS
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.wording import plural

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PART_SPARSITY = 0.8  # at which single parts are compared
CUT_ROWS = 4  # per row of flatness: a score takes one forward pass, flatness dozens with gradients
EPSILONS = (5e-3, 1e-3, 5e-4)  # of the paper's tables
MEASURES: tuple[Mapping[str, Any], ...] = (
    *({"name": "keskar", "epsilon": epsilon} for epsilon in EPSILONS),  # in a random subspace, as published
    {"name": "ball", "rho": 0.05},
    {"name": "hessian", "k": 3, "iterations": 15, "samples": 8},  # more take most of the minutes and change little
    {"name": "gradient-norm"},
)

QUICK_ROWS, QUICK_SPARSITIES = 32, (0.3, 0.6, 0.9)
QUICK_MEASURES: tuple[Mapping[str, Any], ...] = (MEASURES[1], {"name": "ball", "rho": 0.05}, {"name": "gradient-norm"})


def diagnose(
    models: str | Path | Sequence[str | Path],
    task: str | Mapping[str, Any],
    *,
    data: Path | None = None,
    rows: int = 128,
    measures: Sequence[Mapping[str, Any]] = MEASURES,
    seed: int = 0,
    quick: bool = False,
    progress: Progress | None = None,
) -> list[Diagnosis]:
    """Diagnoses fine-tuned models on the same rows, one after the other.

    Args:
        models: Folders or hub names of models with a head for the task, dense or pruned; or a single one.
        task: Its name, or as in a recipe.
        data: Folder with the task's files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        rows: Training rows that flatness is measured on; every cut is scored on four times as many held-out rows.
        measures: As in recipes.
        seed: Draws the rows and whatever the measures draw; that of the run, where it held out rows.
        quick: Takes 32 rows at most, three measures in place of these and three cuts in place of nine.
        progress: Is told what happens, and how long it will take.

    Raises:
        InputError: a model has no head for the task, the task has no such data, or a measure or option does not exist.
    """
    rows, measures = (min(rows, QUICK_ROWS), QUICK_MEASURES) if quick else (rows, measures)
    models = [models] if isinstance(models, str | Path) else models
    if not models:
        raise InputError("diagnose needs at least one model. Give the folder of a fine-tuned one.")
    recipe = load_recipe(
        {"task": task, "model": str(models[0]), "evaluation": {"flatness": {"measures": list(measures), "rows": rows}}}
    )
    # The rows that a run with this seed holds out are those that its model has not seen.
    learned = build(TASKS, recipe.task, data=data, seed=derive_seed(seed, "rows"))
    loaded = [load_encoder(str(name), learned.head, fine_tuned=True) for name in models]
    flatness = recipe.evaluation.flatness
    assert flatness is not None  # given above
    watched, found, cuts = progress or Progress(), [], QUICK_SPARSITIES if quick else SPARSITIES
    for note in learned.notes:
        watched.say(f"note: {note}")
    for note in (one.note for one in loaded if one.note):
        watched.say(f"note: {note}")
    for k, one in enumerate(loaded, 1):
        watched.say(f"model {k} of {len(loaded)}, {model_info(one).name}: scoring it on {learned.split}")
        found.append(_Patient(one, learned, rows, seed, watched).examine(flatness.measures, cuts))
    return found


class _Patient:
    """One model with what it is examined on."""

    def __init__(self, encoder: Encoder, task: Task, rows: int, seed: int, progress: Progress) -> None:
        self.encoder, self.task, self.rows, self.seed, self.progress = encoder, task, rows, seed, progress
        length = min(encoder.max_length, 384 if task.head.kind == "spans" else 128)
        self.train, self.evaluation = task.encode(encoder.tokenizer, length)
        meet(encoder, self.train.rows, learns=True)
        self.sample = sample_split(self.evaluation[task.split], CUT_ROWS * rows, seed)
        self.given = Masks({name: w.detach() != 0 for name, w in prunable(encoder.model).items()})

    def examine(self, measures: Sequence[Mapping[str, Any]], sparsities: Sequence[float]) -> Diagnosis:
        """Everything about this model."""
        started, info = time.perf_counter(), model_info(self.encoder)
        (whole, _), (sampled, answers) = self._score(self.evaluation[self.task.split]), self._score(self.sample)
        self._estimate(time.perf_counter() - started, sparsities)
        flatness, (int8, rounded) = self._flatness(measures), self._int8()
        one_shot, parts = self._one_shot(sparsities), self._parts()
        return Diagnosis(
            model=info.name,
            architecture=info.architecture,
            parameters=info.parameters,
            weights_sha256=info.weights_sha256,
            sparsity=measure_sizes(self.encoder.model, None).encoder_sparsity,
            task=self.task.name,
            split=self.task.split,
            metric=self.task.metric,
            positive=self.task.positive,
            score=whole.value,
            sampled_score=sampled.value,
            sampled_rows=len(self.sample),
            flatness_rows=min(self.rows, len(self.train)),
            data=self.task.fingerprints,
            flatness=flatness,
            int8=int8,
            one_shot=one_shot,
            sensitivity=parts,
            environment=record.environment({"threads": torch.get_num_threads()}),
            seed=self.seed,
            answers=answers,
            without={"whole": whole.without, "int8": rounded.without, "sampled": sampled.without},
            seconds=time.perf_counter() - started,
        )

    def _score(self, split: EncodedSplit) -> tuple[Score, Answers | None]:
        return main_score(self.task, split, predictions_of(self.encoder.model, split, self.encoder.tokenizer))

    def _flatness(self, measures: Sequence[Mapping[str, Any]]) -> list[Measured]:
        masks = self.given if self.given.zeros else None  # a pruned model is measured among its surviving weights
        objective = objective_on(
            self.encoder.model,
            self.train,
            self.encoder.tokenizer,
            rows=self.rows,
            seed=self.seed,
            masks=masks,
            progress=self.progress,
        )
        found = measure_flatness(objective, measures, self.seed)
        return [
            Measured(name=one["name"], options=_options(one), values=values, seconds=seconds)
            for one, (values, seconds) in zip(measures, found, strict=True)
        ]

    def _int8(self) -> tuple[record.Int8, Score]:
        self.progress.say("rounding a copy to int8 and scoring it")
        split, small = self.evaluation[self.task.split], quantize_dynamic(self.encoder.model, activations="token")
        predictions = predictions_of(small, split, self.encoder.tokenizer)
        scores = {self.task.split: self.task.score(split, predictions)}
        found = record.Int8(activations="token", embeddings=False, head=False, scores=scores, bytes=tensor_bytes(small))
        return found, main_score(self.task, split, predictions)[0]

    def _estimate(self, seconds: float, sparsities: Sequence[float]) -> None:
        """Says what is to come, by the time that the first scores took."""
        cuts = len(sparsities) + len(_parts_of(self.encoder.model))
        each = seconds * len(self.sample) / (len(self.sample) + len(self.evaluation[self.task.split]))
        self.progress.say(
            f"flatness comes next, then {plural(cuts, 'cut')}, which take about {cuts * each:.0f} seconds"
        )

    def _one_shot(self, sparsities: Sequence[float]) -> list[Cut]:
        wanted = [s for s in sparsities if s > self.given.sparsity]
        self.progress.begin("pruning at once, without training", len(wanted))
        cuts = []
        for done, sparsity in enumerate(wanted, 1):
            masks = MagnitudePruner(self.encoder.model, sparsity=sparsity, masks=self.given).select()
            cuts.append(self._cut(masks, sparsity))
            self.progress.advance(done, f"{sparsity:.0%}: {cuts[-1].score:z.1f}")
        self.progress.end()
        return cuts

    def _parts(self) -> list[Sensitivity]:
        parts = _parts_of(self.encoder.model)
        self.progress.begin("pruning single parts", len(parts))
        found = []
        for done, ((axis, part), names) in enumerate(parts.items(), 1):
            weights = prunable(self.encoder.model)
            scores = {name: weights[name].detach().abs() for name in names}
            masks = keep_highest(scores, PART_SPARSITY, scope="layer")
            found.append(Sensitivity(axis=axis, part=part, cut=self._cut(masks, PART_SPARSITY)))
            self.progress.advance(done, f"{part}: {found[-1].cut.score:z.1f}")
        self.progress.end()
        return found

    def _cut(self, masks: Masks, sparsity: float) -> Cut:
        with _pruned(self.encoder.model, masks):
            emptied = [name for name in masks if not masks[name].any()]
            found, _ = self._score(self.sample)
            return Cut(sparsity=sparsity, score=found.value, emptied=emptied, without=found.without)


@contextmanager
def _pruned(model: PreTrainedModel, masks: Masks) -> Iterator[None]:
    """Inside, the weights are pruned; afterwards they are what they were, also after an exception."""
    origin: dict[str, Tensor] = {name: w.detach().clone() for name, w in masks.parameters(model).items()}
    try:
        masks.apply_(model)
        yield
    finally:
        with torch.no_grad():
            for name, weight in masks.parameters(model).items():
                weight.copy_(origin[name])


def _parts_of(model: PreTrainedModel) -> dict[tuple[Any, str], list[str]]:
    """The prunable matrices by layer and by kind."""
    parts: dict[tuple[Any, str], list[str]] = defaultdict(list)
    located = matrix_kinds(model, prunable(model))
    for name, (layer, _) in located.items():
        if layer is not None:
            parts["layer", f"layer {layer}"].append(name)
    for name, (_, kind) in located.items():
        parts["kind", kind].append(name)
    return dict(parts)


def _options(measure: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in measure.items() if key != "name"}
