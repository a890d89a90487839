"""Plans a run without running it."""

from pathlib import Path

from trainflat.commands.prepare import AnyRecipe, Overrides, Prepared, prepare, read_job
from trainflat.commands.run_folder import look


def plan(
    recipe: AnyRecipe, *, data: Path | None = None, out: Path = Path("runs"), overrides: Overrides = ()
) -> Prepared:
    """Reads the recipe, the data and the model's configuration and says what would be done. Writes nothing.

    Args:
        recipe: A file, the name of a packaged recipe, or the recipe itself.
        data: Folder with the task's files; else the environment variable TRAINFLAT_DATA, else the Hugging Face hub.
        out: Where the run's folder would be made.
        overrides: ``{"training.epochs": 2}`` or ``["training.epochs=2"]``.

    Raises:
        InputError: what ``run`` would refuse, in the same words, but for what only the model's weights tell, and for
            another process that works in the folder now.
    """
    job = read_job(recipe, data, out, overrides)
    look(job.folder, job.recipe, job.task)
    return prepare(job, weights=False)
