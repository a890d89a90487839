"""Checks the private names of ``transformers.Trainer`` that FlatTrainer overrides, and replaces the optional ones."""

import inspect
from collections.abc import Callable
from typing import Any

import transformers
from transformers import Trainer

from trainflat.core.errors import InputError
from trainflat.core.private_names import PRIVATE_NAMES, PrivateName

OWNER = "transformers.Trainer."
HOOKS = tuple(one for one in PRIVATE_NAMES if one.name.startswith(OWNER) and one.parameters is not None)
DIVISOR = next(one for one in PRIVATE_NAMES if one.name == OWNER + "current_gradient_accumulation_steps")


def require_hooks() -> None:
    """Checks that the Trainer still calls what FlatTrainer overrides; else a training would silently be another one.

    Raises:
        InputError: a method is gone or takes other parameters.
    """
    for one in HOOKS:
        method = getattr(Trainer, one.name.removeprefix(OWNER), None)
        if method is None or not set(one.parameters or ()) <= set(inspect.signature(method).parameters):
            raise _misfit(one)


def require_division(trainer: Trainer) -> None:
    """Checks that the Trainer divides the loss of a micro-batch by the number that FlatTrainer sets.

    Raises:
        InputError: the Trainer's loop has set no such number.
    """
    if not hasattr(trainer, DIVISOR.name.removeprefix(OWNER)):
        raise _misfit(DIVISOR)


def _misfit(one: PrivateName) -> InputError:
    return InputError(
        f"FlatTrainer needs {one.name} as in {one.seen}, and transformers {transformers.__version__} has another or "
        "none. Install one of those, for example with `pip install -c constraints/lock.txt`."
    )


def collator(trainer: Trainer) -> Callable[[list[Any]], dict[str, Any]]:
    """Returns the collator, which drops the columns that the model does not take."""
    without: Any = getattr(trainer, "_get_collator_with_removed_columns", None)
    collate: Callable[[list[Any]], dict[str, Any]] = trainer.data_collator
    return collate if without is None else without(collate, description="pruning")


def micro_batch_rows(trainer: Trainer) -> int:
    """Returns the rows of a micro-batch on all devices of this process, after ``auto_find_batch_size``."""
    return int(getattr(trainer, "_train_batch_size", trainer.args.train_batch_size))


def output_folder(trainer: Trainer, trial: Any) -> str:
    """Returns the folder of the checkpoints, which a hyperparameter search sets for each trial."""
    named: Any = getattr(trainer, "_get_output_dir", None)
    return str(trainer.args.output_dir if named is None else named(trial))
