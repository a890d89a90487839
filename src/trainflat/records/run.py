"""What a run leaves behind, as data: reports and grids read nothing else."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from trainflat.core.errors import InputError
from trainflat.core.files import hash_json
from trainflat.core.margins import Answers
from trainflat.records.base import Data, Format, added_later
from trainflat.records.behaviour import Checklist, Loyalty
from trainflat.records.structure import Structure

RECORD_FILE = "record.json"


class Fingerprint(Data):
    """The data of one split, so that two records can be compared."""

    rows: int
    sha256: str  # over the rows as they were used, in order
    source: str  # "hub:nyu-mll/glue/cola", "file:train.parquet", "embedded"
    partial: bool = False  # only some rows of the official split: not comparable with published figures


class MatrixZeros(Data):
    """How many entries of one prunable matrix are zero."""

    name: str
    entries: int
    zeros: int


class Sizes(Data):
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


class Latency(Data):
    """Seconds of one forward pass: median and quartiles over ``repeats`` passes."""

    batch: int
    length: int
    threads: int
    device: str
    median: float
    low: float
    high: float
    repeats: int


class Averaging(Data):
    """Which models the weights of a stage are the average of."""

    name: str  # "swa", "ema"
    models: int  # how many are in it


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


# A whole number is written as one, however it was added up: 160.0 would give the same run another digest than 160.
Count = Annotated[int | float, AfterValidator(_whole)]


class Training(Data):
    """How one stage was trained."""

    optimizer: str
    steps: int
    epochs: float
    passes: Count  # forward and backward passes over a whole batch; 2 per step for SAM
    best_step: int | None  # the checkpoint that was kept
    # One entry per log: step, epoch, loss, learning_rate, grad_norm, passes; of flat optimizers perturbation, loss_gap.
    curve: list[dict[str, float]]
    # One entry per evaluation: step, epoch, "split/metric"; with averaging also averaged_models (0: still the weights),
    # under a gate its logs and eligible (1: could be the best, as the model was as sparse then as asked).
    evaluations: list[dict[str, float]]
    averaging: Averaging | None = added_later(None)
    # After which of them the model that was evaluated became the teacher; before the first it is the record's.
    teacher_steps: list[int] | None = added_later(None)
    features: dict[str, Any] | None = added_later(None)  # what features that joined the training say of it


class Int8(Data):
    """The int8 copy of a stage: how it was made, how well it does, what it weighs."""

    activations: str  # "token", "batch", "torch": inputs are rounded as they come; "static": by ranges of training
    embeddings: bool  # whether lookup tables are int8 too
    head: bool  # whether linear layers outside the encoder are
    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent
    bytes: int  # of its tensors, without file headers
    answers: Answers | None = added_later(None)  # as a stage's
    loyalty: Loyalty | None = added_later(None)
    checklist: Checklist | None = added_later(None)


class Timing(Data):
    """What differs from run to run: seconds of wall time, never part of the digest."""

    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    latency: list[Latency] = []
    predicted_seconds: float | None = added_later(None)  # of a pass, by the table of times that decided a structure


class Stage(Data):
    """One model that the protocol produced, with everything that was measured on it."""

    name: str  # "dense", "sparsity-0.30"; also its folder below stages/
    target_sparsity: float
    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent
    sizes: Sizes
    matrices: list[MatrixZeros]
    masks_sha256: str | None = None
    flatness: dict[str, float] = {}  # what measures of sharpness found: "keskar_0.001"; see the recipe for the options
    int8: Int8 | None = added_later(None)
    structure: Structure | None = added_later(None)  # of models that are smaller than the dense one
    loyalty: Loyalty | None = added_later(None)  # None also for the stage that the others are compared with
    checklist: Checklist | None = added_later(None)
    training: Training | None = None  # None: no training happened between the stage before and this one
    timing: Timing = Timing()
    # Whether the score is more than a blind answer's; follows from the answers, so the digest leaves it out.
    answers: Answers | None = added_later(None)
    # The main score without each group of rows, for intervals of differences (see `trainflat.core.paired`). Left out of
    # the digest too.
    without: list[float] = added_later([])
    files: dict[str, str] = {}  # path below the run folder -> SHA-256

    def remarks(self) -> list[str]:
        """Says why its score, or its int8 copy's, may stand for nothing learned."""
        mine, rounded = (found.remark() if found else "" for found in (self.answers, self.int8 and self.int8.answers))
        return [remark for remark in (mine, f"in int8, {rounded}" if rounded else "") if remark]


class TaskInfo(Data):
    """What was learned."""

    name: str
    kind: Literal["classification", "regression", "spans"]
    split: str  # the split of the main score
    metric: str  # the main score
    labels: list[str] = []
    positive: str = ""  # the class that "f1" is of, of two
    notes: list[str] = []  # on the rows; they follow from them, so the digest leaves them out


class ModelInfo(Data):
    """Who learned it."""

    name: str  # as the recipe says
    architecture: str  # class name
    layers: int
    parameters: int
    weights_sha256: str  # of the starting weights, head included


class TeacherInfo(ModelInfo):
    """Whom the student learned from."""

    scores: dict[str, dict[str, float]]  # split -> metric -> value, in percent, as measured before any training


class Record(Data):
    """A whole run.

    ``digest`` is the hash of what a repeated run must reproduce on the same machine: everything but ``environment``,
    ``environments`` and the stages' ``timing``.
    """

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
    environments: list[dict[str, Any]] = added_later(
        []
    )  # all that worked on the run, where a resumed one rounds otherwise
    stages: list[Stage]
    digest: str = ""
    teacher: TeacherInfo | None = added_later(None)

    def sealed(self) -> "Record":
        """Returns the same record with its digest."""
        return self.model_copy(update={"digest": self.expected_digest()})

    def expected_digest(self) -> str:
        """Hashes what a repeated run must reproduce."""
        return hash_json(_reproducible(self))

    def score(self, stage: Stage) -> float:
        """Returns the main score of a stage, in percent."""
        return stage.scores[self.task.split][self.task.metric]

    def save(self, folder: Path) -> None:
        """Writes ``record.json``, atomically."""
        RECORD.write(folder / RECORD_FILE, self)

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Reads a record: its folder or its file.

        Raises:
            InputError: there is none, or another version of trainflat wrote it.
            DamagedFile: it is not what was written.
        """
        path = path / RECORD_FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"there is no record at {path}. A run writes it when it is complete; run the recipe again to finish it."
            )
        record: Record = RECORD.read(path)
        return record.sealed()


def _reproducible(record: Record) -> dict[str, Any]:
    value = record.model_dump(mode="json", exclude={"digest", "environment", "environments"})
    del value["task"]["notes"]
    if not value["task"]["positive"]:  # records from before there was a choice keep their digest
        del value["task"]["positive"]
    for stage in value["stages"]:
        del stage["timing"]
        stage.pop("without", None)
        for part in (stage, stage.get("int8") or {}):
            part.pop("answers", None)
        if not stage["flatness"]:  # records from before there were such measures keep their digest
            del stage["flatness"]
    return value | {"format": RECORD.number}


RECORD = Format(
    "record",
    Record,
    _reproducible,
    "Move it away and run the recipe again, which writes it anew from the run's stages.",
)


def environment(devices: Mapping[str, Any]) -> dict[str, Any]:
    """Returns versions and machine; ``devices`` adds what only the caller knows (threads, GPU)."""
    packages = ("trainflat", "torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in packages},
        "system": platform.system(),
        "machine": platform.machine(),
        **devices,
    }


def processor() -> str:
    """Returns the processor's name, as Linux has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@cache  # reading a package's metadata takes milliseconds, and a run asks for seven packages at each of its stages
def package_version(package: str) -> str:
    """Returns the version of an installed package, or says that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
