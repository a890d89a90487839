"""Reads the file of a grid: recipes, axes, and parts that use each other's runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainflat.core.errors import InputError
from trainflat.core.formatting import shown, wanted
from trainflat.core.untrusted import read_text
from trainflat.core.yaml_values import parse_yaml


class Part(BaseModel):
    """Declares runs that share a recipe: one for each combination of values on the axes.

    Attributes:
        recipe: Name of a packaged recipe, a file, or the recipe itself; may be an axis instead.
        set: Overrides, by dotted key; may name runs of an earlier part.
        axes: By name, values to cross. A list holds values of the recipe key that the axis is named for (``optimizer``
            is short for ``training.optimizer``, ``sparsity`` for wherever the protocol has it); a mapping holds, by
            label, overrides that go together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str | dict[str, Any] | None = None
    set: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)] | dict[str, dict[str, Any]]] = {}


class Grid(Part):
    """Declares a grid: one part, or several by name, of which later ones may use runs of earlier ones."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "grid"
    parts: dict[str, Part] = {}

    @model_validator(mode="after")
    def _one_or_several(self) -> "Grid":
        if self.parts and (self.recipe is not None or self.axes):
            raise ValueError("recipe and axes stand in each part of a grid that has parts; set may stand above them")
        return self

    @property
    def named(self) -> dict[str, Part]:
        """Returns the parts by name; a grid of one part is named like its recipe's runs."""
        return self.parts or {"runs": Part(recipe=self.recipe, axes=self.axes)}


def read_grid(source: str | Path | Mapping[str, Any] | Grid) -> Grid:
    """Reads a grid file, or checks a grid that is given as a mapping.

    Raises:
        InputError: it cannot be read, or names the first key that does not fit.
    """
    if isinstance(source, Grid):
        return source
    value, where = (source, "grid") if isinstance(source, Mapping) else (_parsed(Path(source)), str(source))
    named = {"name": Path(source).stem} if not isinstance(source, Mapping) else {}
    try:
        return Grid.model_validate(named | dict(value))
    except ValidationError as error:
        raise InputError(f"{where}: {_fault(error)}") from error


def _fault(error: ValidationError) -> str:
    first, *others = error.errors()
    where = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted(Part.model_fields if len(first["loc"]) > 1 else Grid.model_fields)
        return f"{where} is not a key of grids. Known here: {', '.join(known)}."
    if first["type"] == "string_pattern_mismatch":
        return f"{where} is letters, digits and . _ -, a letter or digit first; got {shown(first['input'])}."
    branches = others if str(first["type"]).endswith("_type") else ()  # all that a value of another type could be
    message = wanted([first, *(one for one in branches if _path(one["loc"]) == where)])
    got = "" if first["type"] == "value_error" else f", got {shown(first['input'])}"
    return f"{where + ': ' if where else ''}{message}{got}."


def _path(location: tuple[int | str, ...]) -> str:
    """Returns the dotted key in pydantic's location, without the names of a union's branches."""
    return ".".join(str(key) for key in location if not str(key).startswith(("list[", "dict[")) and key != "str")


def _parsed(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no grid file {path}. docs/grids.md shows one.")
    try:
        value = parse_yaml(read_text(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not YAML: {error}.") from error
    if not isinstance(value, Mapping):
        raise InputError(f"{path} holds no grid: a mapping with recipe and axes, or with parts, is expected.")
    return value
