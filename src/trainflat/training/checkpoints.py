"""Checkpoints that are whole or absent: sealed by a manifest of hashes, verified before they are loaded."""

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor
from transformers import TrainerState, TrainingArguments

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import is_sealed, load_tensors, read_as, remove, seal, verify

_PREFIX = "checkpoint-"
FLAT = "flat.json"  # what FlatTrainer knows beside the Trainer's state


def path(folder: Path, step: int) -> Path:
    """Returns the folder into which the Trainer writes the checkpoint of a step."""
    return folder / f"{_PREFIX}{step}"


def newest(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint whose best one exists too, verified; deletes unfinished ones of a kill.

    Only for a folder that nobody else writes checkpoints into.

    Raises:
        DamagedFile: a file of one differs from what was written.
    """
    sealed: dict[int, Path] = {}
    for step, checkpoint in _by_step(folder).items():
        if is_sealed(checkpoint):
            sealed[step] = checkpoint
        else:
            remove(checkpoint)
    for checkpoint in sealed.values():
        verify(checkpoint)
    # Without its best checkpoint a run would end, with no word, on its last weights.
    usable = [c for c in sealed.values() if _read_state(c).best_global_step in (None, 0, *sealed)]
    return usable[-1] if usable else None


def to_resume(folder: Path, given: str | bool | None, args: TrainingArguments) -> str | None:
    """Returns the checkpoint that ``train(resume_from_checkpoint=given)`` continues; for True the latest whole one.

    Raises:
        InputError: there is none, FlatTrainer did not write it whole, or it holds the model only.
        DamagedFile: a file of it is missing or differs from what was written.
    """
    if given is None or given is False:
        return None
    whole = [c for c in _by_step(folder).values() if is_sealed(c)]
    if given is True and not whole:
        raise InputError(f"{folder} holds no whole checkpoint of FlatTrainer. Name one, or begin without resuming.")
    checkpoint = whole[-1] if given is True else Path(given)
    if not is_sealed(checkpoint) or not (checkpoint / FLAT).is_file():
        raise InputError(f"{checkpoint} is not a whole checkpoint of FlatTrainer. Name another one, or begin anew.")
    verify(checkpoint)
    rng_state = "rng_state.pth" if args.world_size <= 1 else f"rng_state_{args.process_index}.pth"
    for file in ("trainer_state.json", "optimizer.pt", "scheduler.pt", rng_state):
        if not (checkpoint / file).is_file():
            raise InputError(
                f"{checkpoint} cannot be resumed from: it has no {file}, as with save_only_model or another number of "
                "processes. Name another one, or begin anew."
            )
    _read_state(checkpoint)
    return str(checkpoint)


def finish(checkpoint: Path) -> None:
    """Seals the checkpoint that was just written."""
    (checkpoint / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing reads it
    seal(checkpoint)


def rotate(folder: Path, written: Iterable[int], limit: int | None, best_step: int | None) -> list[int]:
    """Deletes the oldest checkpoints that one run wrote; returns those left.

    Args:
        folder: Of the checkpoints; those of other runs are not looked at.
        written: Their steps, in the order of writing.
        limit: How many may be left, at least the newest and the best; None or 0 for all.
        best_step: Of the best one.
    """
    left = [step for step in written if path(folder, step).is_dir()]
    kept = {*left[-1:], best_step} & set(left)
    for step in [step for step in left if step not in kept]:
        if limit and len(left) > max(limit, len(kept)):
            remove(path(folder, step))
            left.remove(step)
    return left


def read_beside(checkpoint: Path, file: str, wanted: bool, what: str) -> dict[str, Tensor] | None:
    """Loads a feature's state from a checkpoint; returns None where there is none and none is wanted.

    Raises:
        InputError: there is some and none is wanted, or the other way round.
        DamagedFile: it is not what was written.
    """
    found = (checkpoint / file).is_file()
    if found != wanted:
        one, other = ("with", "without") if found else ("without", "with")
        raise InputError(
            f"{checkpoint} was written {one} {what} and cannot go on {other}. "
            f"Resume {one} {what}, or begin in another folder."
        )
    return load_tensors(checkpoint / file)[0] if found else None


class Flat(BaseModel):
    """Holds the content of ``flat.json``."""

    passes: int | float
    written: list[int] = []


def read_flat(checkpoint: Path) -> Flat:
    """Reads what FlatTrainer wrote beside the Trainer's state. Raises DamagedFile if it is something else."""
    return read_as(checkpoint / FLAT, Flat, "what FlatTrainer writes beside a checkpoint")


class _State(BaseModel):
    """Validates the fields of ``trainer_state.json`` that decide how a training continues."""

    model_config = ConfigDict(extra="allow")

    global_step: NonNegativeInt
    max_steps: int
    epoch: float | None
    best_global_step: int | None
    log_history: list[dict[str, float | None]]
    stateful_callbacks: dict[str, Any]


def _read_state(checkpoint: Path) -> _State:
    """Reads and validates the Trainer's state, which the Trainer itself would load unchecked.

    Raises:
        DamagedFile: it is something else, or has keys that the Trainer here does not have, or lacks some.
    """
    # The Trainer logs whatever a loss or a metric was, NaN too.
    state = read_as(checkpoint / "trainer_state.json", _State, "a state of the Trainer", finite=False)
    strange = {field.name for field in fields(TrainerState)} ^ set(state.model_dump())
    if strange:
        raise DamagedFile(
            f"{checkpoint / 'trainer_state.json'} is another version's: {min(strange):.40} is in one state and not in "
            "the other. Go back to the transformers that wrote it, or begin in another folder."
        )
    return state


def _by_step(folder: Path) -> dict[int, Path]:
    """Lists the folders named ``checkpoint-STEP``, ordered by step; ``checkpoint-best`` is somebody else's."""
    named = [(re.fullmatch(_PREFIX + "([0-9]{1,18})", p.name), p) for p in folder.glob(_PREFIX + "*") if p.is_dir()]
    return dict(sorted((int(match[1]), p) for match, p in named if match and match[1] == str(int(match[1]))))
