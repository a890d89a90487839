"""What a recipe may say about training."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from trainflat.averaging import AVERAGING, models_taken
from trainflat.core.errors import InputError
from trainflat.core.formatting import shown
from trainflat.core.settings import Section, Settings
from trainflat.distillation import check_renewal, read_distillation
from trainflat.optim import OPTIMIZERS, OptimizerSettings
from trainflat.quantization import QUANTIZERS
from trainflat.reparametrization import REPARAMETRIZATIONS, check_alone
from trainflat.training.trackers import check_names

Distilling = Annotated[Settings, PlainValidator(read_distillation), PlainSerializer(lambda settings: settings.dump())]
_CAME_LATER = frozenset({"averaging", "distillation", "quantization", "reparametrization"})


class TrainingOptions(BaseModel):
    """How one model is trained; the same for every round of a protocol.

    ``batch_size`` is the number of rows behind one optimizer step, however it is cut: ``accumulate`` micro-batches on
    each of the processes that ``torchrun`` starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    max_length: Annotated[int, Field(ge=4)] = 128
    optimizer: Annotated[OptimizerSettings, OPTIMIZERS] = OPTIMIZERS.read("adamw")
    averaging: Annotated[Settings, AVERAGING] | None = None  # what is evaluated and kept in place of the weights
    distillation: Distilling | None = None  # a teacher, and how much is learned from it
    reparametrization: Annotated[Settings, REPARAMETRIZATIONS] | None = None  # what is trained in place of the weights
    quantization: Annotated[Settings, QUANTIZERS] | None = None  # what the model computes with while it is trained
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the steps
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0  # 0: no clipping
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batching: Literal["length", "random"] = "length"
    perturb_over: Literal["window", "micro-batch"] = "window"
    sync_perturbation: bool = False
    evaluate_every: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    log_every: Annotated[int, Field(ge=1)] = 20
    patience: Annotated[int, Field(ge=1)] | None = None  # evaluations without a better score before training stops
    keep: Literal["best", "last"] = "best"
    report_to: list[str] = []

    @field_validator("optimizer", *_CAME_LATER, mode="before")
    @classmethod
    def _is_a_section(cls, value: Any, field: ValidationInfo) -> Any:
        left_out = value is None and field.field_name in _CAME_LATER
        if not left_out and not isinstance(value, str | dict | Settings):
            raise ValueError(f"a mapping is expected, got {shown(value)}")
        return value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _adamw_by_default(cls, value: Any) -> Any:
        return {"name": "adamw"} | value if isinstance(value, dict) else value

    @field_validator("distillation", mode="before")
    @classmethod
    def _teacher_by_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and not isinstance(value.get("teacher", ""), str):
            raise ValueError(f"teacher is the folder or hub name of a fine-tuned model, got {value['teacher']!r}")
        return value

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, value: list[str]) -> list[str]:
        check_names(value)
        return value

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A recipe that does not use an option that came later keeps its hash, and so its folder and its records.
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key not in _CAME_LATER or value is not None}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingOptions":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulate = {self.accumulate} equal micro-batches"
            )
        if self.reparametrization is not None:
            check_alone(averaging=self.averaging, quantization=self.quantization)
        if self.perturb_over == "micro-batch" and self.sync_perturbation:
            raise ValueError(
                "sync_perturbation needs perturb_over: window; micro-batches inside a window are not synchronised"
            )
        return self

    def features(self) -> dict[str, Any]:
        """The settings of the features that join every training, by key; None where one does not."""
        return {key: getattr(self, key) for key in sorted(_CAME_LATER)}

    @property
    def passes_per_step(self) -> float:
        """Forward and backward passes over a batch behind each optimizer step, on average."""
        return self.optimizer.average_passes

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps in one pass over ``rows`` training rows."""
        return math.ceil(rows / self.batch_size)

    def steps(self, rows: int) -> int:
        """Optimizer steps of one whole training."""
        return math.ceil(self.epochs * self.steps_per_epoch(rows))

    def averaged_models(self, rows: int) -> int:
        """How many models each training averages; 0 without averaging.

        Raises:
            InputError: there is averaging, and the training is too short for it to take in any.
        """
        if self.averaging is None:
            return 0
        return models_taken(self.averaging, self.steps(rows), self.steps_per_epoch(rows))

    def check_renewals(self, rows: int) -> None:
        """Raises InputError where a teacher is to be renewed, and no training evaluates early enough for that."""
        if self.distillation is not None and self.distillation.renew is not None:
            per_epoch = self.steps_per_epoch(rows)
            check_renewal(self.steps(rows), per_epoch if self.evaluate_every == "epoch" else self.evaluate_every)


def read_optimizer(section: Section | None) -> OptimizerSettings | None:
    """Reads the optimizer that FlatTrainer was given.

    Raises:
        InputError: it names none, or options that cannot be used.
    """
    if section is None or isinstance(section, OptimizerSettings):
        return section
    if not isinstance(section, str) and not (isinstance(section, Mapping) and "name" in section):
        raise InputError(f"optimizer is a name or a mapping such as {{'name': 'sam', 'rho': 0.05}}, got {section!r}.")
    return OPTIMIZERS.read(section)
