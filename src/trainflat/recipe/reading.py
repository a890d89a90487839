"""Finds and reads recipes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.listing import packaged_recipes
from trainflat.core.untrusted import read_text
from trainflat.core.yaml_values import parse_yaml
from trainflat.recipe.messages import first_line
from trainflat.recipe.overrides import has_option, set_path, split_override
from trainflat.recipe.sections import Recipe
from trainflat.tasks import TASKS

_DEEPEST = 50


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        source: A file, the name of a packaged recipe, or the recipe itself.
        overrides: ``"training.epochs=2"`` as on the command line (values are YAML), or a mapping of such paths to
            values. Options of the task need no ``task.`` before them.

    Raises:
        InputError: names the path of the first key or value that does not fit, and the nearest name.
    """
    value, where = _read(source)
    items = overrides.items() if isinstance(overrides, Mapping) else map(split_override, overrides)
    for path, new in items:
        set_path(value, _full(path), new)
    value = _copy(value, where)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{where}: {first_line(error)}") from error
    _refuse_truths(value, recipe.resolved(), where)
    return recipe


def _read(source: str | Path | Mapping[str, Any] | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(source, Recipe):
        return source.resolved(), "recipe"
    if isinstance(source, Mapping):
        return _copy(source, "recipe"), "recipe"
    if not str(source).strip():
        raise InputError("the name of the recipe is empty. Give a file, or a name that `trainflat list` shows.")
    packaged = packaged_recipes()
    path = packaged[str(source)] if str(source) in packaged and not Path(source).is_file() else Path(source)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or str(source).split("/")[0] in (".", "..", ""):
            raise InputError(f"there is no recipe file {path}. `trainflat list` shows those of the package.")
        raise UnknownName("recipe", str(source), packaged, more="`trainflat list recipes` shows all")
    try:
        value = parse_yaml(read_text(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # also what is not UTF-8
        raise InputError(f"{path} is not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no recipe: a mapping with at least task and model is expected.")
    return value, str(path)


def _full(path: str) -> str:
    """Completes the path of a key; an option of the task needs no ``task.`` before it, as in other commands."""
    first = path.partition(".")[0]
    of_task = first not in Recipe.model_fields and has_option(TASKS, first)
    return f"task.{path}" if of_task else path


def _copy(value: Any, where: str, depth: int = 0) -> Any:
    """Copies a value deeply; refuses keys that are no text."""
    if depth > _DEEPEST:
        raise InputError(f"{where}: values are nested over {_DEEPEST} deep. Does an alias (*name) contain itself?")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{where}: {key!r} is not a key of recipes, which are words.")
        return {key: _copy(item, where, depth + 1) for key, item in value.items()}
    return [_copy(item, where, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def _refuse_truths(given: Any, read: Any, path: str) -> None:
    """Refuses true and false where a number was read; ``rows: true`` would be 1. A section may be switched on by it."""
    if isinstance(given, bool) and not isinstance(read, bool | dict):
        raise InputError(f"{path}: a number is expected, got {str(given).lower()}.")
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given.keys() & read.keys():
            _refuse_truths(given[key], read[key], f"{path}: {key}" if ": " not in path else f"{path}.{key}")
    if isinstance(given, list) and isinstance(read, list):
        for one, other in zip(given, read, strict=False):
            _refuse_truths(one, other, path)
