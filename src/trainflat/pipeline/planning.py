"""What a run would do, without doing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat import record
from trainflat.evaluation import SPEED_NOTE
from trainflat.pipeline.folder import CLAIM
from trainflat.protocols import PROTOCOLS, Planned, Protocol
from trainflat.protocols.bench import derive_seed
from trainflat.recipe import Recipe, build, load_recipe
from trainflat.tasks import TASKS


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
        per_stage = ["config.json", "model.safetensors", "tokenizer.json", "stage.json", "manifest.json"]
        names = [
            f"stages/{s.name}/{f}"
            for s in self.stages
            for f in [*per_stage, *(["masks.safetensors"] if s.sparsity else [])]
        ]
        return ["recipe.yaml", CLAIM, *names, record.RECORD_FILE]


def plan(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    data: Path | None = None,
    out: Path = Path("runs"),
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Plan:
    """Reads the recipe and the data and says what would be done. Loads no model and writes nothing."""
    recipe = load_recipe(recipe, overrides)
    protocol: Protocol = build(PROTOCOLS, recipe.protocol)
    task = build(TASKS, recipe.task, data=data, seed=derive_seed(recipe.seed, "rows"))
    rows = {name: fingerprint.rows for name, fingerprint in task.fingerprints.items()}
    train = rows.pop("train")
    return Plan(
        recipe=recipe,
        folder=out / recipe.folder_name,
        stages=protocol.plan(),
        train_rows=train,
        evaluation_rows=rows,
        steps_per_training=recipe.training.steps(train),
        passes_per_step=recipe.training.passes_per_step,
        averaged_models=recipe.training.averaged_models(train),
        exact=task.head.kind != "spans",
        partial=[name for name, fingerprint in task.fingerprints.items() if fingerprint.partial],
        note=SPEED_NOTE if protocol.unstructured else "",
    )
