"""Prepares a run and refuses what cannot work: ``trainflat check`` prints the result, ``trainflat run`` uses it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trainflat.commands.behaviour import Given, prepare_behaviour
from trainflat.commands.refusals import check_encoder, check_machine, check_methods
from trainflat.commands.run_folder import CLAIM, LOCK, RECIPE
from trainflat.core.errors import InputError
from trainflat.core.files import MANIFEST
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Settings
from trainflat.evaluation import SPEED_NOTE
from trainflat.models import Encoder, load_encoder, load_on_meta, meet
from trainflat.protocols import Planned, Protocol
from trainflat.protocols.store import MAPS, STAGE, STAGES
from trainflat.protocols.teaching import OWN
from trainflat.recipe import Recipe, load_recipe
from trainflat.records.run import RECORD_FILE
from trainflat.tasks.base import Task
from trainflat.training.features.quantization import RANGES
from trainflat.training.options import TrainingOptions
from trainflat.training.teachers import check_weight, load_teacher, load_teacher_on_meta

AnyRecipe = str | Path | Mapping[str, Any] | Recipe
Overrides = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """Holds a recipe, its task with the data read, and the folder of the run."""

    recipe: Recipe
    task: Task
    folder: Path

    @cached_property
    def protocol(self) -> Protocol:
        """Returns the protocol, built once."""
        made: Protocol = self.recipe.protocol.build()
        return made

    @cached_property
    def train_rows(self) -> int:
        """Counts the training rows."""
        return int(self.task.fingerprints["train"].rows)

    @property
    def given_teacher(self) -> Settings | None:
        """Returns the settings of distillation where they name a model, and not the run's own dense stage."""
        settings = self.recipe.training.distillation
        own = settings is not None and self.protocol.teaches and settings.teacher == OWN
        return None if own else settings

    @property
    def exact(self) -> bool:
        """Returns whether steps follow from rows; False for spans, whose long paragraphs take several windows."""
        return self.task.head.kind != "spans"

    @property
    def steps_per_training(self) -> int:
        """Counts the optimizer steps of one training."""
        return self.recipe.training.steps(self.train_rows)


@dataclass(frozen=True)
class Prepared(Job):
    """Holds a job that passed all checks, with its models.

    Attributes:
        encoder: The model, of which a plan has names and shapes only; None where the hub did not answer.
        teacher: Likewise, where the recipe asks for one.
        behaviour: What behaviour is measured by.
    """

    encoder: Encoder | None
    teacher: Encoder | None
    behaviour: Given

    @property
    def sources(self) -> dict[str, str]:
        """Returns hashes of what comes from elsewhere, by what it is called: a run goes on with the same only."""
        return {**self.protocol.sources(), **self.behaviour.hashes()}

    @property
    def stages(self) -> list[Planned]:
        """Lists every stage, in order."""
        return self.protocol.plan()

    @property
    def trainings(self) -> int:
        """Counts the stages that are trained."""
        return sum(stage.trained for stage in self.stages)

    @property
    def steps(self) -> int:
        """Counts the optimizer steps of all trainings."""
        return sum(self.stage_steps.values())

    @property
    def stage_steps(self) -> dict[str, int]:
        """Counts the optimizer steps of each stage that is trained, by its name."""
        training, rows = self.recipe.training, self.train_rows
        return {stage.name: stage.phase.steps(training, rows) for stage in self.stages if stage.trained}

    @property
    def features(self) -> dict[str, tuple[Any, str]]:
        """Returns each feature's settings and outlook by recipe key; settings are None where it does not join."""
        return self.recipe.training.planned(self.train_rows)

    @property
    def curve(self) -> tuple[str, list[tuple[int, float]]] | None:
        """Returns the quantity that a gate's schedule raises in each training, and its path as (step, value)."""
        return self.protocol.curve(self.steps_per_training)

    @property
    def evaluation_rows(self) -> dict[str, int]:
        """Counts the rows of every evaluated split."""
        return {name: one.rows for name, one in self.task.fingerprints.items() if name != "train"}

    @property
    def partial(self) -> list[str]:
        """Lists the splits that hold only some of the official rows."""
        return [name for name, fingerprint in self.task.fingerprints.items() if fingerprint.partial]

    @property
    def note(self) -> str:
        """Returns a note on the speed of unstructured zeros; empty where there are none."""
        return SPEED_NOTE if self.protocol.unstructured else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lists warnings about data and model."""
        return (*self.task.notes, *([self.encoder.note] if self.encoder and self.encoder.note else []))

    @property
    def texts(self) -> tuple[str, ...]:
        """Lists the text columns of the user's own files; none for other tasks."""
        text = self.recipe.task.options.get("text", ())
        return (text,) if isinstance(text, str) else tuple(text)

    @property
    def protocol_options(self) -> dict[str, Any]:
        """Returns the protocol's section with its open options filled in."""
        return {k: v for k, v in (self.recipe.protocol.section() | self.protocol.settled()).items() if v is not None}

    @property
    def teacher_seen(self) -> bool:
        """Returns whether the teacher, if there is one, could be looked at."""
        return self.given_teacher is None or self.teacher is not None

    def refuse_unseen(self) -> None:
        """Raises InputError where a model was not looked at: it cannot be run here."""
        names = [self.recipe.model.name] if self.encoder is None else []
        names += [] if self.teacher_seen or self.given_teacher is None else [self.given_teacher.teacher]
        if names:
            raise InputError(
                f"model {names[0]!r} was not looked at: it is neither packaged nor a folder nor in the hub's cache, "
                "and the hub does not answer. This recipe cannot be run here; give a folder or `minilm`, or connect."
            )

    @property
    def files(self) -> list[str]:
        """Lists the files that the run's folder will hold."""
        per_stage = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", STAGE, MANIFEST]
        per_stage += [RANGES] if self.recipe.training.quantization else []
        layerwise = self.recipe.training.features().get("layerwise")
        maps = [] if layerwise is None or layerwise.map == "none" else [MAPS]
        own = {s.name: [*self.protocol.stage_files(s), *(maps if s.handed_on else [])] for s in self.stages}
        names = [f"{STAGES}/{stage}/{f}" for stage, more in own.items() for f in [*per_stage, *more]]
        return [LOCK, RECIPE, CLAIM, *self.protocol.files(), *names, RECORD_FILE]


def read_job(recipe: AnyRecipe, data: Path | None, out: Path, overrides: Overrides) -> Job:
    """Reads a recipe and its data. Raises InputError if the recipe is none, or the task has no such data."""
    recipe = load_recipe(recipe, overrides)
    task: Task = recipe.task.build(data=data, seed=derive_seed(recipe.seed, "rows"))
    return Job(recipe, task, out / recipe.folder_name)


def prepare(job: Job, *, weights: bool) -> Prepared:
    """Finds the models of a job, and checks everything that does not take a training to know.

    Args:
        job: Recipe and task.
        weights: Whether models are loaded, to be trained; else only their names and shapes are looked at.

    Raises:
        InputError: this machine cannot train so, methods do not go together, or do not fit the model or the rows; there
            is no such model or teacher, or it is not for this task.
    """
    check_machine(job.recipe, job.task, job.folder)
    check_methods(job.recipe, job.task)
    encoder = _encoder(job, weights=weights)
    if encoder is not None:
        check_encoder(job.recipe, encoder)
    if encoder is not None and not weights:
        meet(encoder)  # a run does so with its own rows
    teacher = _teacher(job, encoder, weights=weights)
    _check_teacher(job, encoder, teacher)
    _check_length(job, encoder)
    behaviour = prepare_behaviour(job.recipe, job.task, job.protocol, encoder, weights=weights)
    return Prepared(job.recipe, job.task, job.folder, encoder, teacher, behaviour)


def _encoder(job: Job, *, weights: bool) -> Encoder | None:
    model, head = job.recipe.model, job.task.head
    if weights:
        seed = derive_seed(job.recipe.seed, "head")
        return load_encoder(model.name, head, layers=model.layers, seed=seed, fine_tuned=job.protocol.fine_tuned)
    return load_on_meta(model.name, head, layers=model.layers, fine_tuned=job.protocol.fine_tuned)


def _teacher(job: Job, student: Encoder | None, *, weights: bool) -> Encoder | None:
    settings, head, length = job.recipe.training.distillation, job.task.head, job.recipe.training.max_length
    if settings is not None:
        check_weight(settings.weight, head)
    if settings is None or job.given_teacher is None:
        return None
    if not weights or student is None:
        return load_teacher_on_meta(settings.teacher, head, student, length)
    teacher = load_teacher(settings.teacher, head, student, length)
    teacher.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return teacher


def _check_teacher(job: Job, student: Encoder | None, teacher: Encoder | None) -> None:
    """Checks that what learns from more than a teacher's answers has a teacher, and one that fits."""
    training = job.recipe.training
    own = job.given_teacher is None
    if own and "layerwise" in training.features() and not job.protocol.teaches:
        raise InputError(
            "training.layerwise learns from the layers of a teacher, and the recipe names none. Add "
            "training.distillation.teacher, with weight 0 if its logits are not to be learned from."
        )
    asked = student if own and job.protocol.teaches else teacher
    if student is not None and asked is not None:
        training.check_teacher(student.model, asked.model)


def _check_length(job: Job, encoder: Encoder | None) -> None:
    """Checks that schedules, features and rounds fit the number of steps, as far as it follows from the rows."""
    training = job.recipe.training
    _check_training(job, training, job.train_rows)
    for stage in job.protocol.plan():
        if stage.trained and stage.phase.options():  # a stage that comes last would be refused after hours
            try:
                _check_stage(job, stage)
            except InputError as error:
                raise InputError(f"stage {stage.name}: {error}") from error
    job.protocol.check(job.steps_per_training if job.exact else None, encoder.model if encoder else None)


def _check_stage(job: Job, stage: Planned) -> None:
    options = stage.phase.applied(job.recipe.training)
    if stage.name == OWN and job.given_teacher is None:
        options = options.model_copy(update={"distillation": None})
    for rows in set(stage.phase.row_counts(job.train_rows)):
        _check_training(job, options, rows)


def _check_training(job: Job, training: TrainingOptions, rows: int) -> None:
    if job.exact or training.evaluate_every == "epoch":
        training.check_renewals(rows)
    if job.exact:
        training.planned(rows)
