"""Where protocols get their models from: a stage is trained once, and recalled from disk ever after."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.files import (
    hash_file,
    is_sealed,
    load_tensors,
    read_as,
    remove,
    save_tensors,
    seal,
    verify,
    write_json,
    writing,
)
from trainflat.core.progress import Progress
from trainflat.core.settings import Settings
from trainflat.evaluation import objective_on
from trainflat.models import Encoder, no_bars
from trainflat.objective import Objective
from trainflat.protocols.base import Planned, Produced, stage_name
from trainflat.pruning import Masks, Pruner, Scope
from trainflat.quantization import Q8BERT, make_quantizer
from trainflat.records import run as record
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.training.fit import fit, forget
from trainflat.training.fit_callbacks import SNAPSHOT
from trainflat.training.options import TrainingOptions
from trainflat.training.quantized import RANGES

STAGES = "stages"
MASKS, STAGE = "masks.safetensors", "stage.json"
REWIND = "rewind"  # holds the weights of the step that rounds go back to


@dataclass
class Bench:
    """One model, one task and the folder of one run.

    A stage's folder holds the model as ``transformers`` loads it, the masks, and ``stage.json``; it is sealed when
    complete.
    Checkpoints of a training in progress lie in ``work/``.
    """

    encoder: Encoder
    task: Task
    train_split: EncodedSplit
    evaluation: Mapping[str, EncodedSplit]
    options: TrainingOptions
    folder: Path
    seed: int
    writes: bool = True  # False on all processes of a data-parallel run but the first
    progress: Progress = field(default_factory=Progress)
    teacher: torch.nn.Module | None = None  # of every training, where the recipe asks for one

    def __post_init__(self) -> None:
        self.model = self.encoder.model
        self.initial = self.state()
        self.quantizer: Q8BERT | None = None  # of the latest training; its ranges are those of the model's int8 copy

    @cached_property
    def head_names(self) -> frozenset[str]:
        """Names of the task head's tensors: all that are not the encoder's."""
        inside = {id(tensor) for tensor in self.model.base_model.state_dict(keep_vars=True).values()}
        return frozenset(n for n, t in self.model.state_dict(keep_vars=True).items() if id(t) not in inside)

    @property
    def steps(self) -> int:
        """Optimizer steps of one training."""
        return self.options.steps(len(self.train_split))

    def state(self) -> dict[str, Tensor]:
        """A deep copy of the weights: later training does not reach it."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts weights into the model, in place."""
        self.model.load_state_dict(dict(state))

    def train(
        self,
        stage: Planned,
        *,
        start: Mapping[str, Tensor],
        masks: Masks | None = None,
        snapshot: int | None = None,
        gate: Mapping[str, Any] | None = None,
        freeze_embeddings: bool = False,
    ) -> Produced:
        """The stage's model: recalled where it was completed before, else trained from ``start``, masked or gated."""
        known = self.recall(stage)
        if snapshot is not None and not is_sealed(self._snapshot_folder):
            known = None  # train again, to the same weights, for the snapshot on the way
        if known is not None:
            with no_bars():
                stored = type(self.model).from_pretrained(self.stage_folder(stage.name), dtype=torch.float32)
            self.load(stored.state_dict())
            _take_config(self.model, stored)
            self.quantizer = self._recall_quantizer(stage)
            return Produced(stage, self.recall_masks(stage), known.training, known.timing.train_seconds)
        self.load(start)
        if masks is not None:
            masks.apply_(self.model)
        work = self.folder / "work" / stage.name
        fitted = fit(
            self.model,
            self.encoder.tokenizer,
            self.task,
            self.train_split,
            self.evaluation,
            options=self.options,
            folder=work,
            seed=derive_seed(self.seed, stage.name),
            masks=masks,
            teacher=self.teacher,
            snapshot=None if snapshot is None else (snapshot, self._snapshot_folder),
            gate=gate,
            freeze_embeddings=freeze_embeddings,
            progress=self.progress,
        )
        self.quantizer = fitted.quantizer
        return Produced(stage, fitted.masks, fitted.training, fitted.seconds)

    def pruner(self, settings: Settings, sparsity: float, scope: Scope, masks: Masks | None = None) -> Pruner:
        """Builds a pruner for the weights on the bench, with the loss that some of them score by."""
        made: Pruner = settings.build(
            self.model, sparsity=sparsity, scope=scope, masks=masks, seed=self.seed, objective=self._objective
        )
        return made

    def _objective(self, rows: int, batch_size: int) -> Objective:
        """The task's loss on some training rows, the same ones whenever it is asked for."""
        return objective_on(
            self.model,
            self.train_split,
            self.encoder.tokenizer,
            rows=rows,
            batch_size=batch_size,
            seed=derive_seed(self.seed, "pruning rows"),
            progress=self.progress,
        )

    def commit(self, produced: Produced, stage: record.Stage) -> record.Stage:
        """Writes a measured stage; from now on it is recalled. Gives the stage with the hashes of its files."""
        if not self.writes:
            return stage
        folder = self.stage_folder(produced.plan.name)
        remove(folder)
        with writing(folder), no_bars():
            self.model.save_pretrained(folder)
            self.encoder.tokenizer.save_pretrained(folder)
        if produced.masks is not None:
            produced.masks.check(self.model)
            produced.masks.save(folder / MASKS)
        if self.quantizer is not None:
            save_tensors(folder / RANGES, self.quantizer.state_dict())
        files = {str(p.relative_to(self.folder)): hash_file(p) for p in sorted(folder.iterdir())}
        masks_hash = produced.masks.sha256 if produced.masks is not None else None
        stage = stage.model_copy(update={"files": files, "masks_sha256": masks_hash})
        write_json(folder / STAGE, stage.model_dump(mode="json"))
        for path in folder.iterdir():
            path.chmod((folder / STAGE).stat().st_mode)  # safetensors leaves 0600, which would hide the weights
        seal(folder)
        forget(self.folder / "work" / produced.plan.name)
        return stage

    def tidy(self) -> None:
        """Deletes what only a run in progress needs."""
        if self.writes:
            remove(self.folder / "work")

    def recall(self, stage: Planned) -> record.Stage | None:
        """What was measured on a completed stage, None where it is not complete.

        Raises:
            DamagedFile: a file of it is not what was written.
        """
        folder = self.stage_folder(stage.name)
        if not is_sealed(folder):
            return None
        verify(folder)
        return read_as(folder / STAGE, record.Stage, "a stage as this trainflat writes them")

    def recall_masks(self, stage: Planned) -> Masks | None:
        """The masks of a completed stage; raises as ``recall`` does."""
        known = self.recall(stage)
        return (
            None if known is None or known.masks_sha256 is None else Masks.load(self.stage_folder(stage.name) / MASKS)
        )

    def _recall_quantizer(self, stage: Planned) -> Q8BERT | None:
        if self.options.quantization is None:
            return None
        options = dict(self.options.quantization)
        quantizer = make_quantizer(options.pop("name"), self.model, **options)
        quantizer.load_state_dict(load_tensors(self.stage_folder(stage.name) / RANGES)[0])
        return quantizer

    def snapshot(self) -> dict[str, Tensor]:
        """The weights of the step that the dense training was told to keep.

        Raises:
            InputError: the training ended before that step.
            DamagedFile: they are not what was written.
        """
        if not self._snapshot_folder.exists():
            raise InputError(
                "the dense training stopped before the step of protocol.rewind. Name an earlier step, or leave "
                "training.patience out."
            )
        verify(self._snapshot_folder)
        return load_tensors(self._snapshot_folder / SNAPSHOT)[0]

    def stage_folder(self, name: str) -> Path:
        """Where a stage lies."""
        return self.folder / STAGES / name

    @property
    def _snapshot_folder(self) -> Path:
        return self.folder / REWIND


def _take_config(model: Any, trained: Any) -> None:
    """Makes the model's configuration that of the trained one: training changes some of it (``use_cache``)."""
    learned = {key: value for key, value in vars(trained.config).items() if not key.startswith("_")}
    vars(model.config).update(learned)


def derive_seed(seed: int, purpose: str) -> int:
    """A seed for one part of a run, unrelated to those of its other parts and of other runs."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big") % 2**31


def check_sparsities(sparsities: Sequence[float]) -> tuple[float, ...]:
    """Ascending shares between 0 and 1 that differ in their first ten decimals, as the names of their stages do.

    Raises:
        InputError: names the first that is not.
    """
    before, taken = 0.0, {"dense", stage_name(1e-11), stage_name(1.0)}  # 1e-11 is written as 0
    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise InputError(f"protocol sparsities are shares in (0, 1), got {sparsity}. Half of the weights is 0.5.")
        if sparsity <= before:
            raise InputError(f"protocol sparsities are ascending, got {sparsity} after {before}. Order them.")
        if stage_name(sparsity) in taken:
            raise InputError(
                f"protocol sparsities are told apart by ten decimals, got {sparsity} after {before}. Leave one out."
            )
        before = sparsity
        taken.add(stage_name(sparsity))
    if not sparsities:
        raise InputError("protocol sparsities are empty. Name at least one share, such as [0.5].")
    return tuple(float(s) for s in sparsities)


def masks_of_run(run: Path, sparsity: float) -> Masks:
    """The masks that another run holds at a sparsity.

    Raises:
        InputError: the run has no stage of that sparsity; names those it has.
        DamagedFile: the masks are not what was written.
    """
    folder = run / STAGES / stage_name(sparsity)
    complete = (run / record.RECORD_FILE).is_file()
    if not is_sealed(folder) and not (folder.is_dir() and complete):
        known = sorted(p.parent.name for p in run.glob(f"{STAGES}/*/{MASKS}") if is_sealed(p.parent))
        raise InputError(f"the run {run} has no masks at sparsity {sparsity}. It has: {', '.join(known) or 'none'}.")
    # A run that has a record would not compute it again.
    damaged = f"the folder {folder}" + (f" and {run / record.RECORD_FILE}" if complete else "")
    verify(folder, known={MASKS: None}, move=f"Delete {damaged}, then run the recipe of {run} again.")
    return Masks.load(folder / MASKS)
