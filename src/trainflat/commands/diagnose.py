"""Measures how flat a fine-tuned model is and how well it can be compressed."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from trainflat.anatomy import matrix_kinds
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.files import hash_json
from trainflat.core.formatting import duration, plural
from trainflat.core.margins import Answers, Score
from trainflat.core.progress import Progress
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Settings
from trainflat.core.unfinished import Unfinished
from trainflat.evaluation import (
    checked_measures,
    expected_seconds,
    main_score,
    measure_sizes,
    objective_on,
    predictions_of,
    sample_split,
    scoring_seconds,
    tensor_bytes,
)
from trainflat.models import Encoder, load_encoder, meet, model_info
from trainflat.pruning import MagnitudePruner, Masks, keep_highest
from trainflat.quantization import quantize_dynamic
from trainflat.recipe import load_recipe
from trainflat.records import run as record
from trainflat.records.diagnosis import Cut, Diagnosis, Measured, Sensitivity
from trainflat.tasks.base import EncodedSplit, Task

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
    keep: Path | None = None,
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
        keep: File for what is finished, from which the same call goes on after a kill. Delete it when all is saved.
        progress: Shows what happens, and how long it will take.

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
    learned = recipe.task.build(data=data, seed=derive_seed(seed, "rows"))
    loaded = [load_encoder(str(name), learned.head, fine_tuned=True) for name in models]
    flatness = recipe.evaluation.flatness
    assert flatness is not None  # given above
    cuts = QUICK_SPARSITIES if quick else SPARSITIES
    plan = _Plan(recipe.task.section(), rows, flatness.measures, cuts, seed, keep)
    watched, found = progress or Progress(), []
    for note in [*learned.notes, *(one.note for one in loaded if one.note)]:
        watched.say(f"note: {note}")
    for k, one in enumerate(loaded, 1):
        watched.say(f"model {k} of {len(loaded)}, {model_info(one).name}: scoring it on {learned.split}")
        found.append(_Examination(one, learned, plan, k, watched).examine())
    return found


@dataclass(frozen=True)
class _Plan:
    """Holds what is measured on every model."""

    task: Mapping[str, Any]  # as in a recipe
    rows: int
    measures: Sequence[Settings]
    sparsities: Sequence[float]
    seed: int
    keep: Path | None


class _Examination:
    """Examines one model: its rows, measures and cuts, and what of these was found before."""

    def __init__(self, encoder: Encoder, task: Task, plan: _Plan, number: int, progress: Progress) -> None:
        self.encoder, self.task, self.plan, self.progress = encoder, task, plan, progress
        length = min(encoder.max_length, 384 if task.head.kind == "spans" else 128)
        self.train, self.evaluation = task.encode(encoder.tokenizer, length)
        meet(encoder, self.train.rows, learns=True)
        self.whole = self.evaluation[task.split]
        self.sample = sample_split(self.whole, CUT_ROWS * plan.rows, plan.seed)
        self.given = Masks({name: w.detach() != 0 for name, w in prunable(encoder.model).items()})
        self.sparsities = [s for s in plan.sparsities if s > self.given.sparsity]
        self.parts = _parts_of(encoder.model)
        self.objective = objective_on(
            encoder.model,
            self.train,
            encoder.tokenizer,
            rows=plan.rows,
            seed=plan.seed,
            masks=self.given if self.given.zeros else None,  # a pruned model is measured among its surviving weights
            progress=progress,
        )
        self.members = checked_measures(self.objective, plan.measures, plan.seed)
        self.info, self.environment = model_info(encoder), record.environment({"threads": torch.get_num_threads()})
        self.kept = Unfinished(plan.keep, self._key(number))

    def examine(self) -> Diagnosis:
        """Returns everything about this model."""
        self._announce()
        whole, _ = self._score("scores whole", self.whole)
        sampled, answers = self._score("scores sample", self.sample)
        flatness = [self._measure(k) for k in range(len(self.members))]
        int8, rounded = self.kept.take("int8 copy", tuple[record.Int8, Score], self._int8)
        one_shot, parts = self._one_shot(), self._parts()
        return Diagnosis(
            model=self.info.name,
            architecture=self.info.architecture,
            parameters=self.info.parameters,
            weights_sha256=self.info.weights_sha256,
            sparsity=measure_sizes(self.encoder.model, None).encoder_sparsity,
            task=self.task.name,
            split=self.task.split,
            metric=self.task.metric,
            positive=self.task.positive,
            score=whole.value,
            sampled_score=sampled.value,
            sampled_rows=len(self.sample),
            flatness_rows=min(self.plan.rows, len(self.train)),
            data=self.task.fingerprints,
            flatness=flatness,
            int8=int8,
            one_shot=one_shot,
            sensitivity=parts,
            environment=self.environment,
            seed=self.plan.seed,
            answers=answers,
            without={"whole": whole.without, "int8": rounded.without, "sampled": sampled.without},
            seconds=self.kept.seconds(),
        )

    def _key(self, number: int) -> str:
        """Hashes all that decides what is found."""
        rows = hashlib.sha256()
        for row in [*self.whole.rows, *({k: v.tolist() for k, v in b.items()} for b in self.objective.batches)]:
            rows.update(repr(row).encode())
        tokenizer, task = self.encoder.tokenizer, self.task
        return hash_json(
            {
                "number": number,
                "weights": self.info.weights_sha256,
                "config": self.encoder.model.config.to_json_string(),
                "rows": [rows.hexdigest(), tokenizer.pad_token_id, tokenizer.padding_side],
                "task": [task.name, task.split, task.metric, task.positive, self.plan.task],
                "data": {name: one.model_dump() for name, one in task.fingerprints.items()},
                "plan": [
                    [measure.section() for measure in self.plan.measures],
                    self.sparsities,
                    self.plan.rows,
                    self.plan.seed,
                ],
                "environment": [self.environment, record.processor()],
            }
        )

    def _announce(self) -> None:
        """Says what is there and, by a few passes over real rows, how long the rest will take."""
        measures = [f"flatness {k}" for k in range(len(self.members))]
        cuts = [*(f"cuts {s}" for s in self.sparsities), *(f"parts {axis} {part}" for axis, part in self.parts)]
        names = ["scores whole", "scores sample", *measures, "int8 copy", *cuts]
        missing = [name for name in names if name not in self.kept]
        if len(missing) < len(names):
            self.progress.say(f"going on: {len(names) - len(missing)} of {len(names)} parts were measured before")
        if not missing:
            return
        token = scoring_seconds(self.encoder.model, self.whole, self.encoder.tokenizer)
        whole, sample = token * sum(self.whole.lengths), token * sum(self.sample.lengths)
        wanted = [name for name in measures if name in missing]
        expected = expected_seconds(self.objective, [self.members[measures.index(name)] for name in wanted])
        times = {"scores whole": whole, "scores sample": sample, "int8 copy": whole, **dict.fromkeys(cuts, sample)}
        times |= {name: about for name, (about, _) in zip(wanted, expected, strict=True)}
        self.progress.say(_announcement({name: times[name] for name in missing}, sum(most for _, most in expected)))

    def _score(self, name: str, split: EncodedSplit) -> tuple[Score, Answers | None]:
        return self.kept.take(name, tuple[Score, Answers | None], lambda: self._scored(split))

    def _scored(self, split: EncodedSplit) -> tuple[Score, Answers | None]:
        return main_score(self.task, split, predictions_of(self.encoder.model, split, self.encoder.tokenizer))

    def _measure(self, k: int) -> Measured:
        """Takes one measure of flatness."""

        def take() -> Measured:
            started, measure = time.perf_counter(), self.plan.measures[k]
            values = self.members[k].measure(self.objective, self.plan.seed)
            seconds = time.perf_counter() - started
            return Measured(name=measure.name, options=measure.dump(), values=values, seconds=seconds)

        return self.kept.take(f"flatness {k}", Measured, take)

    def _int8(self) -> tuple[record.Int8, Score]:
        self.progress.say("rounding a copy to int8 and scoring it")
        small = quantize_dynamic(self.encoder.model, activations="token")
        predictions = predictions_of(small, self.whole, self.encoder.tokenizer)
        scores = {self.task.split: self.task.score(self.whole, predictions)}
        found = record.Int8(activations="token", embeddings=False, head=False, scores=scores, bytes=tensor_bytes(small))
        return found, main_score(self.task, self.whole, predictions)[0]

    def _one_shot(self) -> list[Cut]:
        def cut(sparsity: float) -> Cut:
            masks = MagnitudePruner(self.encoder.model, sparsity=sparsity, masks=self.given).select()
            return self._cut(masks, sparsity)

        self.progress.begin("pruning at once, without training", len(self.sparsities))
        cuts = []
        for done, sparsity in enumerate(self.sparsities, 1):
            cuts.append(self.kept.take(f"cuts {sparsity}", Cut, partial(cut, sparsity)))
            self.progress.advance(done, f"{sparsity:.0%}: {cuts[-1].score:z.1f}")
        self.progress.end()
        return cuts

    def _parts(self) -> list[Sensitivity]:
        def cut(names: Sequence[str]) -> Cut:
            weights = prunable(self.encoder.model)
            scores = {name: weights[name].detach().abs() for name in names}
            return self._cut(keep_highest(scores, PART_SPARSITY, scope="layer"), PART_SPARSITY)

        self.progress.begin("pruning single parts", len(self.parts))
        found = []
        for done, ((axis, part), names) in enumerate(self.parts.items(), 1):
            one = self.kept.take(f"parts {axis} {part}", Cut, partial(cut, names))
            found.append(Sensitivity(axis=axis, part=part, cut=one))
            self.progress.advance(done, f"{part}: {found[-1].cut.score:z.1f}")
        self.progress.end()
        return found

    def _cut(self, masks: Masks, sparsity: float) -> Cut:
        with masks.tried(self.encoder.model):
            emptied = [name for name in masks if not masks[name].any()]
            found, _ = self._scored(self.sample)
            return Cut(sparsity=sparsity, score=found.value, emptied=emptied, without=found.without)


def _announcement(times: Mapping[str, float], most: float) -> str:
    """Says how long all will take, and each kind of part; at most ``most`` for flatness, whose searches end late."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, seconds in times.items():
        kinds[name.partition(" ")[0]].append(seconds)
    counted = {"cuts": plural(len(kinds["cuts"]), "cut"), "parts": plural(len(kinds["parts"]), "single part")}
    told = [f"{counted.get(kind, kind)} {duration(sum(each))}" for kind, each in kinds.items() if each]
    upper = f"; flatness up to {duration(most)} where its searches are slow to end" if kinds["flatness"] else ""
    return f"this takes about {duration(sum(times.values()))}: {', '.join(told)}{upper}"


def _parts_of(model: PreTrainedModel) -> dict[tuple[Any, str], list[str]]:
    """Returns the prunable matrices by layer and by kind."""
    parts: dict[tuple[Any, str], list[str]] = defaultdict(list)
    located = matrix_kinds(model, prunable(model))
    for name, (layer, _) in located.items():
        if layer is not None:
            parts["layer", f"layer {layer}"].append(name)
    for name, (_, kind) in located.items():
        parts["kind", kind].append(name)
    return dict(parts)
