"""Declares the sections of a recipe, validated to the last key."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from trainflat.core.files import hash_json
from trainflat.core.settings import Settings
from trainflat.protocols import PROTOCOLS
from trainflat.protocols.teaching import OWN
from trainflat.quantization import Activations
from trainflat.records.behaviour import Base
from trainflat.sharpness import MEASURES, distinct
from trainflat.tasks import TASKS
from trainflat.training.options import TrainingOptions

_LONGEST = 200  # file systems take 255 bytes, of which the hash needs some


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(_Section):
    """Names the encoder: ``minilm``, a hub name or a folder; ``layers`` keeps the first N."""

    name: Annotated[str, Field(min_length=1)]
    layers: Annotated[int, Field(ge=1)] | None = None


class LatencyOptions(_Section):
    """Lists the shapes whose forward pass is timed; no batches, no timing."""

    batches: list[Annotated[int, Field(ge=1)]] = [1, 32]
    lengths: list[Annotated[int, Field(ge=1)]] = [32, 128]
    repeats: Annotated[int, Field(ge=1)] = 7


class FlatnessOptions(_Section):
    """Configures measures of sharpness on rows of the training set.

    ``surviving``: only weights that are not pruned move, so that dense and pruned models compare.
    """

    measures: Annotated[list[Annotated[Settings, MEASURES]], Field(min_length=1)] = [MEASURES.read("keskar")]
    rows: Annotated[int, Field(ge=1)] = 512
    surviving: bool = True

    @field_validator("measures", mode="before")
    @classmethod
    def _known_measures(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError("a list of measures is expected, such as [keskar, {name: ball, rho: 0.05}]")
        read = [MEASURES.read(one) for one in value]
        distinct(one.build() for one in read)
        return read

    @model_serializer(mode="wrap")
    def _short_by_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As it was first written: else recipes that leave the measures out would get another hash, and folder.
        dumped: dict[str, Any] = handler(self)
        return dumped if "measures" in self.model_fields_set else dumped | {"measures": [{"name": "keskar"}]}


class Int8Options(_Section):
    """Configures the int8 copy that is scored beside every stage; ``int8: true`` is short for these.

    ``activations: torch`` is the arithmetic of published figures, see :func:`trainflat.quantization.quantize_dynamic`.
    """

    activations: Activations = "token"
    embeddings: bool = False
    head: bool = False


class LoyaltyOptions(_Section):
    """Names the model that stages are compared with; ``loyalty: true`` is short for these.

    ``to: dense`` is the run's own first stage, anything else a fine-tuned model by folder or hub name; ``base`` is of
    the logarithm in probability loyalties.
    """

    to: Annotated[str, Field(min_length=1)] = OWN
    base: Base = "e"


class ChecklistOptions(_Section):
    """Names a suite of behavioural tests; ``checklist: mini-sentiment`` is short for ``{suite: mini-sentiment}``.

    ``labels`` are the task's classes in the order of the suite's, where their names do not say it. The ``seed`` of the
    draw is not the run's, so that all runs answer the same cases.
    """

    suite: Annotated[str, Field(min_length=1)]
    cases: Annotated[int, Field(ge=1)] = 500
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    labels: list[str] | None = None


_LATER = ("flatness", "int8", "loyalty", "checklist")  # options of `evaluation` that came after the first recipes


class EvaluationOptions(_Section):
    """Configures what is measured at every stage beside scores, sparsity and sizes."""

    latency: LatencyOptions = LatencyOptions()
    flatness: FlatnessOptions | None = None
    int8: Int8Options | None = None
    loyalty: LoyaltyOptions | None = None
    checklist: ChecklistOptions | None = None

    @field_validator("int8", "loyalty", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_validator("checklist", mode="before")
    @classmethod
    def _suite_by_name(cls, value: Any) -> Any:
        return {"suite": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A recipe that does not use an option that came later keeps its hash, and so its folder and its records.
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key not in _LATER or value is not None}


class Recipe(_Section):
    """Describes one run; ``task: cola`` is short for ``task: {name: cola}``, also for model and protocol."""

    name: str = "run"
    task: Annotated[Settings, TASKS]
    model: ModelOptions
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    training: TrainingOptions = TrainingOptions()
    protocol: Annotated[Settings, PROTOCOLS] = PROTOCOLS.read("dense")
    evaluation: EvaluationOptions = EvaluationOptions()

    @field_validator("name")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(f"letters, digits and . _ - make a run's folder, a letter or digit first; got {value!r}")
        if len(value) > _LONGEST:
            raise ValueError(f"a run's folder is named by it, so {_LONGEST} characters at most; got {len(value)}")
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def resolved(self) -> dict[str, Any]:
        """Returns every option with its value, as JSON: the content of the run's ``recipe.yaml``."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """Hashes the resolved recipe by SHA-256, without ``report_to``, which changes no result."""
        value = self.resolved()
        del value["training"]["report_to"]
        return hash_json(value)

    @property
    def folder_name(self) -> str:
        """Returns the name of the run's folder: ``NAME-`` and the first ten digits of the hash."""
        return f"{self.name}-{self.hash[:10]}"
