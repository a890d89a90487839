"""Formats pydantic's errors about a recipe as one line."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from trainflat.core.formatting import shown, wanted
from trainflat.recipe.sections import Recipe


def first_line(error: ValidationError) -> str:
    errors = error.errors()
    first, path = errors[0], _path(errors[0]["loc"])
    where = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{where} is not a key of recipes.{hint} Known here: {', '.join(known)}."
    if first["type"] == "missing":
        return f"{where} is missing. Add it."
    message = wanted([e for e in errors if _path(e["loc"]) == path]).removeprefix(f"{where}.")
    told = first["type"] == "value_error" or isinstance(first["input"], dict)
    got = "" if told else f", got {shown(first['input'])}"
    return f"{_joined(where, message)}{got}".rstrip(".") + "."


def _joined(where: str, message: str) -> str:
    """Joins a key's path and its fault, which may begin with the key's own name."""
    key = where.rpartition(".")[2]
    return where + message.removeprefix(key) if message.startswith(f"{key} ") else f"{where}: {message}"


def _path(location: Sequence[int | str]) -> list[int | str]:
    """Returns the keys in pydantic's location, without the union branch at its end."""
    path: list[int | str] = []
    model: Any = Recipe
    for key in location:
        fields = getattr(model, "model_fields", None) or None  # settings of a member have no fields that are known here
        if fields is None and isinstance(key, str):
            break
        path.append(key)
        model = _section(fields[key].annotation) if fields and key in fields else None
    return path


def _section(annotation: Any) -> Any:
    """Returns the section's class in an annotation that also allows None."""
    return next((one for one in get_args(annotation) if hasattr(one, "model_fields")), annotation)


def _fields_at(path: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for key in path:
        model = _section(model.model_fields[str(key)].annotation)
    return sorted(model.model_fields)
