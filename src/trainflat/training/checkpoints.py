"""Checkpoints that are whole or absent: sealed by a manifest of hashes, verified before they are loaded."""

from pathlib import Path

from torch import Tensor

from trainflat.errors import InputError
from trainflat.files import is_sealed, load_tensors, read_json, remove, seal, verify

_PREFIX = "checkpoint-"


def path(folder: Path, step: int) -> Path:
    """Where the Trainer writes the checkpoint of a step."""
    return folder / f"{_PREFIX}{step}"


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint whose best one is there too, verified; those that a kill left unfinished are deleted.

    Raises:
        DamagedFile: a file of one differs from what was written.
    """
    sealed: dict[int, Path] = {}
    for checkpoint in sorted(folder.glob(_PREFIX + "*"), key=_step):
        if is_sealed(checkpoint):
            sealed[_step(checkpoint)] = checkpoint
        else:
            remove(checkpoint)
    for checkpoint in sealed.values():
        verify(checkpoint)
    # Without its best checkpoint a run would end, with no word, on its last weights.
    usable = [
        c for c in sealed.values() if read_json(c / "trainer_state.json")["best_global_step"] in (None, 0, *sealed)
    ]
    return usable[-1] if usable else None


def finish(folder: Path, step: int, best_step: int | None) -> None:
    """Seals the checkpoint that was just written and deletes those that are neither the newest nor the best."""
    current = path(folder, step)
    (current / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing reads it
    seal(current)
    for checkpoint in folder.glob(_PREFIX + "*"):
        if _step(checkpoint) not in (step, best_step):
            remove(checkpoint)


def read_beside(checkpoint: Path, file: str, wanted: bool, what: str) -> dict[str, Tensor] | None:
    """What was trained along with the model and put beside it in a checkpoint; None where none is, and none is wanted.

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


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_PREFIX))
