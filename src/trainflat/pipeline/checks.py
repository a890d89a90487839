"""What a run and its plan refuse in the same words, before anything is trained."""

from pathlib import Path

from trainflat.errors import InputError
from trainflat.models import Encoder
from trainflat.recipe import Recipe
from trainflat.tasks.base import Task
from trainflat.training.fit import training_arguments
from trainflat.training.trackers import check_installed


def check_machine(recipe: Recipe, task: Task, folder: Path) -> None:
    """This machine can train as the recipe says.

    Raises:
        InputError: precision, trackers, or how the batch is cut over the processes.
    """
    training_arguments(recipe.training, task, folder, recipe.seed)
    check_installed(recipe.training.report_to)


def check_length(recipe: Recipe, encoder: Encoder) -> None:
    """The model has a position for every token.

    Raises:
        InputError: it has fewer.
    """
    length, name = recipe.training.max_length, recipe.model.name
    if length > encoder.max_length:
        raise InputError(
            f"training.max_length {length} is more than the {encoder.max_length} positions of {name}. "
            f"Set {encoder.max_length} or less."
        )
