"""What a run would do, without doing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat.commands.refusals import check_encoder, check_gate, check_machine, check_teacher
from trainflat.commands.run_folder import CLAIM, LOCK, RECIPE, look
from trainflat.core.errors import InputError
from trainflat.core.files import MANIFEST
from trainflat.core.rng import derive_seed
from trainflat.evaluation import SPEED_NOTE
from trainflat.models import load_on_meta, meet
from trainflat.protocols import Planned, Protocol
from trainflat.protocols.store import MASKS, STAGE, STAGES
from trainflat.recipe import Recipe, load_recipe
from trainflat.records.run import RECORD_FILE
from trainflat.training.quantized import RANGES


@dataclass(frozen=True)
class Plan:
    """What a run would do, without doing it."""

    recipe: Recipe
    folder: Path
    stages: list[Planned]
    train_rows: int
    evaluation_rows: dict[str, int]
    steps_per_training: int
    passes_per_step: float
    averaged_models: int  # of each training; 0: none is averaged
    exact: bool  # False: long paragraphs will be read in several windows, so that there are some more steps
    partial: list[str]  # splits that hold only some of the official rows
    note: str
    notes: tuple[str, ...]  # on the data and the model: to be read before any score is trusted
    kind: str  # "classification", "regression", "spans"
    labels: tuple[str, ...]  # names of the classes
    texts: tuple[str, ...]  # the columns of the user's own files; none for other tasks
    split: str  # of the main score
    metric: str  # the main score
    positive: str  # the class that "f1" is of, of two
    model_seen: bool  # False: the hub could not be reached, so the model was not looked at
    teacher_seen: bool  # likewise
    protocol: dict[str, Any]  # with what its open options come to
    curve: tuple[str, list[tuple[int, float]]] | None  # what rises in each training, and (step, value) of its path
    protocol_files: list[str]  # what the protocol leaves beside its stages

    def refuse_unseen(self) -> None:
        """Raises InputError where a model was not looked at: it cannot be run here."""
        section = self.recipe.training.distillation or {}
        names = [self.recipe.model.name] * (not self.model_seen) + [section.get("teacher")] * (not self.teacher_seen)
        if names:
            raise InputError(
                f"model {names[0]!r} was not looked at: it is neither packaged nor a folder nor in the hub's cache, "
                "and the hub does not answer. This recipe cannot be run here; give a folder or `minilm`, or connect."
            )

    @property
    def trainings(self) -> int:
        """How many stages are trained."""
        return sum(stage.trained for stage in self.stages)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.trainings * self.steps_per_training

    @property
    def files(self) -> list[str]:
        """What the run's folder will hold."""
        per_stage = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", STAGE, MANIFEST]
        per_stage += [RANGES] if self.recipe.training.quantization else []
        names = [
            f"{STAGES}/{s.name}/{f}"
            for s in self.stages
            for f in [*per_stage, *([MASKS] if s.sparsity or s.open else [])]
        ]
        return [LOCK, RECIPE, CLAIM, *self.protocol_files, *names, RECORD_FILE]


def plan(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Plan:
    """Reads the recipe, the data and the model's configuration and says what would be done. Writes nothing.

    Raises:
        InputError: what ``run`` would refuse, in the same words, but for what only the model's weights tell, and for
            another process that works in the folder now.
    """
    recipe = load_recipe(recipe, overrides)
    protocol: Protocol = recipe.protocol.build()
    task = recipe.task.build(data=data, seed=derive_seed(recipe.seed, "rows"))
    folder = out / recipe.folder_name
    look(folder, recipe, task)
    check_machine(recipe, task, folder)
    check_gate(recipe)
    encoder = load_on_meta(recipe.model.name, task.head, layers=recipe.model.layers)
    if encoder is not None:
        check_encoder(recipe, encoder)
        meet(encoder)
    teacher_seen = check_teacher(recipe, task.head, encoder)
    rows = {name: fingerprint.rows for name, fingerprint in task.fingerprints.items()}
    train = rows.pop("train")
    recipe.training.check_renewals(train)
    steps, exact = recipe.training.steps(train), task.head.kind != "spans"
    protocol.check(steps if exact else None, encoder.model if encoder else None)
    return Plan(
        recipe=recipe,
        folder=folder,
        stages=protocol.plan(),
        train_rows=train,
        evaluation_rows=rows,
        steps_per_training=steps,
        passes_per_step=recipe.training.passes_per_step,
        averaged_models=recipe.training.averaged_models(train),
        exact=exact,
        partial=[name for name, fingerprint in task.fingerprints.items() if fingerprint.partial],
        note=SPEED_NOTE if protocol.unstructured else "",
        notes=(*task.notes, *([encoder.note] if encoder and encoder.note else [])),
        kind=task.head.kind,
        labels=task.head.labels,
        texts=_columns(recipe.task.options),
        split=task.split,
        metric=task.metric,
        positive=task.positive,
        model_seen=encoder is not None,
        teacher_seen=teacher_seen,
        protocol={key: v for key, v in (recipe.protocol.section() | protocol.settled()).items() if v is not None},
        curve=protocol.curve(steps),
        protocol_files=protocol.files(),
    )


def _columns(section: Mapping[str, Any]) -> tuple[str, ...]:
    text = section.get("text", ())
    return (text,) if isinstance(text, str) else tuple(text)
