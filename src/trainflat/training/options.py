"""Declares the options of a recipe's ``training`` section."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn

from trainflat.averaging import AVERAGING
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


def _joining(keys: Iterable[str]) -> dict[str, Any]:
    """Returns the classes of the features that recipes may have, by key."""
    from trainflat.training.features import FEATURES  # imports transformers' arguments, which most users of this do not

    return {key: FEATURES[key] for key in FEATURES if key in set(keys) and FEATURES[key].in_recipes}


class TrainingOptions(BaseModel):
    """Configures the training of one model; the same for every round of a protocol.

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
    _more: dict[str, Any] = PrivateAttr(default_factory=dict)  # settings of features that have no field above, by key

    @model_validator(mode="wrap")
    @classmethod
    def _with_features(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Takes any key of ``FEATURES`` that a recipe may have: a new feature needs no field here."""
        more = _joining(value.keys() - cls.model_fields) if isinstance(value, dict) else {}
        if not more:
            return handler(value)
        made = handler({key: inner for key, inner in value.items() if key not in more})
        given = {key: value[key] for key in more if value[key] is not None}  # null leaves out, as for the fields above
        fields: dict[str, Any] = {key: (Annotated[Any, PlainValidator(more[key].read)], ...) for key in given}
        read = create_model("FeatureSections", **fields).model_validate(given)
        made._more = dict(read)
        return made

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
        kept = {key: value for key, value in dumped.items() if key not in _CAME_LATER or value is not None}
        return kept | {key: kind.write(self._more[key]) for key, kind in _joining(self._more).items()}

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
        """Returns the settings of each feature by key; None where one does not join the training."""
        return {key: getattr(self, key) for key in sorted(_CAME_LATER)} | self._more

    def planned(self, rows: int) -> dict[str, tuple[Any, str]]:
        """Returns each feature's settings as JSON and its outlook, for a plan; ``(None, "")`` where it does not join.

        Raises:
            InputError: one does not fit the steps of a training on so many rows.
        """
        given = self.features()
        joining = {key: kind for key, kind in _joining(given).items() if given[key] is not None}
        length = self.steps(rows), self.steps_per_epoch(rows)
        found = {key: (kind.write(given[key]), kind.outlook(given[key], *length)) for key, kind in joining.items()}
        return {key: found.get(key, (None, "")) for key in _joining(given)}

    def check_teacher(self, student: nn.Module, teacher: nn.Module) -> None:
        """Checks that a teacher fits a student, as far as features ask more of it than its answers.

        Raises:
            InputError: names the feature.
        """
        given = self.features()
        for key, kind in _joining(given).items():
            if given[key] is not None:
                try:
                    kind.check_teacher(given[key], student, teacher, given)
                except InputError as error:
                    raise InputError(f"training.{key}: {error}") from error

    @property
    def passes_per_step(self) -> float:
        """Counts the forward and backward passes over a batch per optimizer step, on average."""
        return self.optimizer.average_passes

    def steps_per_epoch(self, rows: int) -> int:
        """Counts the optimizer steps of one epoch of ``rows`` training rows."""
        return math.ceil(rows / self.batch_size)

    def steps(self, rows: int) -> int:
        """Counts the optimizer steps of one whole training."""
        return math.ceil(self.epochs * self.steps_per_epoch(rows))

    def check_renewals(self, rows: int) -> None:
        """Raises InputError where ``renew: best`` is set and no evaluation comes before the last step."""
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
