"""Keeps the finished stages of a run on disk, and gives them back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
from trainflat.core.settings import Settings
from trainflat.export.loading import load
from trainflat.models import no_bars
from trainflat.protocols.stages import Planned, Produced, stage_name
from trainflat.pruning import Masks
from trainflat.quantization import Q8BERT
from trainflat.records import run as record
from trainflat.training.features.quantization import RANGES
from trainflat.training.features.snapshot import SNAPSHOT
from trainflat.training.fit import forget

STAGES = "stages"
MASKS, MAPS, STAGE = "masks.safetensors", "maps.safetensors", "stage.json"
REWIND = "rewind"  # holds the weights of the step that rounds go back to
_WORK = "work"


@dataclass(frozen=True)
class StageStore:
    """Keeps the stages in a run's folder.

    Each has a folder with the model as ``trainflat.load`` and ``from_pretrained`` read it, the masks
    or maps, and ``stage.json``; it is sealed when complete. Checkpoints of a training in progress lie in ``work/``.

    Attributes:
        folder: Of the run.
        writes: False on all processes of a data-parallel run but the first.
        quantization: Section of a recipe, where models are trained for int8.
        shared: Run folders, by the name of a stage, that hold the same one: it is recalled from there.
    """

    folder: Path
    writes: bool = True
    quantization: Settings | None = None
    shared: Mapping[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Returns the folder of a stage, whether or not it is there."""
        return self.folder / STAGES / name

    def checkpoints(self, name: str) -> Path:
        """Returns where the checkpoints of a stage's training lie."""
        return self.folder / _WORK / name

    def commit(self, produced: Produced, stage: record.Stage, tokenizer: PreTrainedTokenizerBase) -> record.Stage:
        """Writes a measured stage, which is recalled from now on; returns it with the hashes of its files."""
        if not self.writes:
            return stage
        folder = self.path(produced.plan.name)
        remove(folder)
        with writing(folder), no_bars():
            produced.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        if produced.masks is not None:
            produced.masks.check(produced.model)
            produced.masks.save(folder / MASKS)
        if produced.maps is not None:
            save_tensors(folder / MAPS, produced.maps)
        if produced.quantizer is not None:
            save_tensors(folder / RANGES, produced.quantizer.state_dict())
        files = {str(p.relative_to(self.folder)): hash_file(p) for p in sorted(folder.iterdir())}
        masks_hash = produced.masks.sha256 if produced.masks is not None else None
        stage = stage.model_copy(update={"files": files, "masks_sha256": masks_hash})
        write_json(folder / STAGE, stage.model_dump(mode="json"))
        for path in folder.iterdir():
            path.chmod((folder / STAGE).stat().st_mode)  # safetensors leaves 0600, which would hide the weights
        seal(folder)
        forget(self.checkpoints(produced.plan.name))
        return stage

    def tidy(self) -> None:
        """Deletes what only a run in progress needs."""
        if self.writes:
            remove(self.folder / _WORK)

    def measured(self, plan: Planned) -> record.Stage | None:
        """Reads what was measured on a completed stage; None where it is not complete.

        Raises:
            DamagedFile: a file of it is not what was written.
        """
        return _measured(self.path(plan.name))

    def recall(self, plan: Planned) -> Produced | None:
        """Loads a completed stage, this run's or another's; None where it is not complete. Raises as ``measured``."""
        other = self.shared.get(plan.name)
        for folder in (self.path(plan.name), *([] if other is None else [other / STAGES / plan.name])):
            known = _measured(folder)
            if known is not None:
                return self._load(plan, known, folder)
        return None

    def _load(self, plan: Planned, known: record.Stage, folder: Path) -> Produced:
        model = load(folder)
        masks = None if known.masks_sha256 is None else Masks.load(folder / MASKS)
        quantizer = None if self.quantization is None else _quantizer(self.quantization, model, folder)
        maps = load_tensors(folder / MAPS)[0] if (folder / MAPS).is_file() else None
        seconds = known.timing.train_seconds
        return Produced(plan, model, masks, known.training, seconds, quantizer, known.structure, maps=maps)

    @property
    def snapshot_folder(self) -> Path:
        """Where the dense training puts the weights of the step that is rewound to."""
        return self.folder / REWIND

    @property
    def has_snapshot(self) -> bool:
        """Whether the weights of the step that is rewound to are there, whole."""
        return is_sealed(self.snapshot_folder)

    def snapshot(self) -> dict[str, Tensor]:
        """Loads the weights of the step that is rewound to.

        Raises:
            InputError: the training ended before that step.
            DamagedFile: they are not what was written.
        """
        if not self.snapshot_folder.exists():
            raise InputError(
                "the dense training stopped before the step of protocol.rewind. Name an earlier step, or leave "
                "training.patience out."
            )
        verify(self.snapshot_folder)
        return load_tensors(self.snapshot_folder / SNAPSHOT)[0]


def _measured(folder: Path) -> record.Stage | None:
    if not is_sealed(folder):
        return None
    verify(folder)
    return read_as(folder / STAGE, record.Stage, "a stage as this trainflat writes them")


def masks_of_run(run: Path, sparsity: float) -> Masks:
    """Loads the masks that another run holds at a sparsity.

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


def _quantizer(settings: Settings, model: PreTrainedModel, folder: Path) -> Q8BERT:
    quantizer: Q8BERT = settings.build(model)
    quantizer.load_state_dict(load_tensors(folder / RANGES)[0])
    return quantizer
