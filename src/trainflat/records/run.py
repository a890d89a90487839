"""What a run leaves behind, as data: reports and grids read nothing else."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import MOVE, hash_json, read_json, write_json
from trainflat.core.margins import Answers
from trainflat.core.untrusted import validated

RECORD_FILE = "record.json"
FORMAT = 1


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fingerprint(_Data):
    """The data of one split, so that two records can be compared."""

    rows: int
    sha256: str  # over the rows as they were used, in order
    source: str  # "hub:nyu-mll/glue/cola", "file:train.parquet", "embedded"
    partial: bool = False  # only some rows of the official split: not comparable with published figures


class MatrixZeros(_Data):
    """How many entries of one prunable matrix are zero."""

    name: str
    entries: int
    zeros: int


class Sizes(_Data):
    """What a model weighs, in parameters and bytes (embeddings, biases and task head included).

    ``dense_bytes`` every parameter as float32; ``bitmask_bytes`` pruned matrices as one bit per entry and the surviving
    values; ``packed_bytes`` the same with the bits compressed.
    """

    parameters: int
    nonzero: int
    encoder_sparsity: float  # share of the prunable weights that are zero
    total_sparsity: float  # share of all parameters that are zero
    dense_bytes: int
    bitmask_bytes: int
    packed_bytes: int


class Latency(_Data):
    """Seconds of one forward pass: median and quartiles over ``repeats`` passes."""

    batch: int
    length: int
    threads: int
    device: str
    median: float
    low: float
    high: float
    repeats: int


class Averaging(_Data):
    """Which models the weights of a stage are the average of."""

    name: str  # "swa", "ema"
    models: int  # how many are in it


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


# A whole number is written as one, however it was added up: 160.0 would give the same run another digest than 160.
Count = Annotated[int | float, AfterValidator(_whole)]


class Training(_Data):
    """How one stage was trained."""

    optimizer: str
    steps: int
    epochs: float
    passes: Count  # forward and backward passes over a whole batch; 2 per step for SAM
    best_step: int | None  # the checkpoint that was kept
    # One entry per log: step, epoch, loss, learning_rate, grad_norm, passes; of flat optimizers perturbation, loss_gap.
    curve: list[dict[str, float]]
    # One entry per evaluation: step, epoch, "split/metric"; with averaging also averaged_models (0: still the weights).
    evaluations: list[dict[str, float]]
    averaging: Averaging | None = None
    # After which of them the model that was evaluated became the teacher; before the first it is the record's.
    teacher_steps: list[int] | None = None

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records from before there was averaging, or a teacher that is renewed, keep their digest.
        dumped: dict[str, Any] = handler(self)
        return {k: v for k, v in dumped.items() if k not in ("averaging", "teacher_steps") or v is not None}


class Int8(_Data):
    """The int8 copy of a stage: how it was made, how well it does, what it weighs."""

    activations: str  # "token", "batch", "torch": inputs are rounded as they come; "static": by ranges of training
    embeddings: bool  # whether lookup tables are int8 too
    head: bool  # whether linear layers outside the encoder are
    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent
    bytes: int  # of its tensors, without file headers
    answers: Answers | None = None  # as a stage's

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key != "answers" or value is not None}


class Timing(_Data):
    """What differs from run to run: seconds of wall time, never part of the digest."""

    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    latency: list[Latency] = []


class Stage(_Data):
    """One model that the protocol produced, with everything that was measured on it."""

    name: str  # "dense", "sparsity-0.30"; also its folder below stages/
    target_sparsity: float
    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent
    sizes: Sizes
    matrices: list[MatrixZeros]
    masks_sha256: str | None = None
    flatness: dict[str, float] = {}  # what measures of sharpness found: "keskar_0.001"; see the recipe for the options
    int8: Int8 | None = None
    training: Training | None = None  # None: no training happened between the stage before and this one
    timing: Timing = Timing()
    answers: Answers | None = None  # whether the score is more than a blind answer's; derived, never part of the digest
    files: dict[str, str] = {}  # path below the run folder -> SHA-256

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records from before there was int8 keep their digest.
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key not in ("int8", "answers") or value is not None}

    def remarks(self) -> list[str]:
        """Why its score, or its int8 copy's, may stand for nothing learned."""
        mine, rounded = (found.remark() if found else "" for found in (self.answers, self.int8 and self.int8.answers))
        return [remark for remark in (mine, f"in int8, {rounded}" if rounded else "") if remark]


class TaskInfo(_Data):
    """What was learned."""

    name: str
    kind: Literal["classification", "regression", "spans"]
    split: str  # the split of the main score
    metric: str  # the main score
    labels: list[str] = []
    positive: str = ""  # the class that "f1" is of, of two
    notes: list[str] = []  # on the rows; they follow from them, so the digest leaves them out


class ModelInfo(_Data):
    """Who learned it."""

    name: str  # as the recipe says
    architecture: str  # class name
    layers: int
    parameters: int
    weights_sha256: str  # of the starting weights, head included


class TeacherInfo(ModelInfo):
    """Whom the student learned from."""

    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent, as measured before any training


class Record(_Data):
    """A whole run.

    ``digest`` is the hash of what a repeated run must reproduce on the same machine: everything but ``environment``,
    ``environments`` and the stages' ``timing``.
    """

    format: int = FORMAT
    name: str
    recipe: dict[str, Any]
    recipe_hash: str
    seed: int
    protocol: str
    optimizer: str
    task: TaskInfo
    model: ModelInfo
    data: dict[str, Fingerprint]
    environment: dict[str, Any]
    environments: list[dict[str, Any]] = []  # all that worked on the run, where a resumed one rounds otherwise
    stages: list[Stage]
    digest: str = ""
    teacher: TeacherInfo | None = None

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As for Training.
        dumped: dict[str, Any] = handler(self)
        return {k: v for k, v in dumped.items() if v is not None and (k != "environments" or v)}

    def sealed(self) -> "Record":
        """The same record with its digest."""
        return self.model_copy(update={"digest": self.expected_digest()})

    def expected_digest(self) -> str:
        """Hash of the reproducible part."""
        value = self.model_dump(mode="json", exclude={"digest", "environment", "environments"})
        del value["task"]["notes"]
        if not value["task"]["positive"]:  # records from before there was a choice keep their digest
            del value["task"]["positive"]
        for stage in value["stages"]:
            del stage["timing"]
            for part in (stage, stage.get("int8") or {}):
                part.pop("answers", None)
            if not stage["flatness"]:  # records from before there were such measures keep their digest
                del stage["flatness"]
        return hash_json(value)

    def score(self, stage: Stage) -> float:
        """The main score of a stage, in percent."""
        return stage.scores[self.task.split][self.task.metric]

    def save(self, folder: Path) -> None:
        """Writes ``record.json``, atomically."""
        write_json(folder / RECORD_FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Reads a record: its folder or its file.

        Raises:
            InputError: there is none, or a newer trainflat wrote it.
            DamagedFile: it is not what was written.
        """
        path = path / RECORD_FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"there is no record at {path}. A run writes it when it is complete; run the recipe again to finish it."
            )
        value = read_json(path)
        if not isinstance(value, dict):
            raise DamagedFile(f"{path} is not a record: it holds {value!r:.20}, no mapping. {MOVE}")
        if value.get("format", FORMAT) != FORMAT:
            found = f"{path} has format {value['format']!r:.20}"
            raise InputError(f"{found}, this trainflat reads {FORMAT}. Use the trainflat that wrote it.")
        record: Record = validated(value, cls, f"{path} is not a record", MOVE)
        if record.digest != record.expected_digest():
            raise DamagedFile(
                f"{path} was changed after it was written (its digest does not fit). "
                "Move it away and run the recipe again, which writes it anew from the run's stages."
            )
        return record


def environment(devices: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and machine, for the record. ``devices`` adds what only the caller knows (threads, GPU)."""
    packages = ("trainflat", "torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in packages},
        "system": platform.system(),
        "machine": platform.machine(),
        **devices,
    }


def processor() -> str:
    """Its name, as Linux has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def package_version(package: str) -> str:
    """Of what is installed, or that it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
