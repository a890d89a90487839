"""Reads a grid: recipes, and axes whose values are crossed."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainflat.commands.grid.values import SPARSITY, Labelled, axis_values, full_key, is_reference, sparsity_setting
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural, shown, wanted
from trainflat.core.untrusted import read_text
from trainflat.core.yaml_values import parse_yaml
from trainflat.protocols.store import STAGES
from trainflat.recipe import Recipe, load_recipe
from trainflat.recipe.overrides import set_path

_MOST = 10_000  # runs; beyond, a value was mistyped
RECIPE_AXIS = "recipe"


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


@dataclass(frozen=True)
class Cell:
    """Holds one run of a grid.

    Attributes:
        part: Name of its part.
        labels: Of its value on each axis.
        recipe: What is run.
        needs: Folder names of the runs whose models or masks it takes.
    """

    part: str
    labels: Mapping[str, str]
    recipe: Recipe
    needs: frozenset[str]

    @property
    def title(self) -> str:
        """Returns the labels, for a table."""
        return " · ".join(self.labels.values()) or self.recipe.name


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
    where = ".".join(str(key) for key in first["loc"] if not str(key).startswith(("list[", "dict[")))
    if first["type"] == "extra_forbidden":
        known = sorted(Part.model_fields if len(first["loc"]) > 1 else Grid.model_fields)
        return f"{where} is not a key of grids. Known here: {', '.join(known)}."
    message = wanted([first, *(one for one in others if one["loc"] == first["loc"])])
    got = "" if first["type"] == "value_error" else f", got {shown(first['input'])}"
    return f"{where + ': ' if where else ''}{message}{got}."


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


def cells(grid: Grid, out: Path, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
    """Crosses the axes of every part.

    Args:
        grid: What to cross.
        out: Where runs make their folders; references to other runs become paths in here.
        overrides: For every run, by dotted key; they go before the values of axes.

    Raises:
        InputError: a value does not fit its recipe, a reference names no run or several, or there are too many runs.
    """
    found: dict[str, list[Cell]] = {}
    for name, part in grid.named.items():
        found[name] = []
        for values in _crossed(name, part):
            found[name].append(_cell(name, part, {**grid.set, **(overrides or {})}, values, found, out))
    return _distinct([cell for part in found.values() for cell in part])


def _crossed(name: str, part: Part) -> Iterator[Mapping[str, Labelled]]:
    axes = {axis: axis_values(axis, values) for axis, values in part.axes.items()}
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > _MOST:
        raise InputError(
            f"part {name} of the grid is {plural(count, 'run', form=',')}; {_MOST:,} at most. Shorten an axis."
        )
    for chosen in itertools.product(*axes.values()):
        yield dict(zip(axes, chosen, strict=True))


def _cell(  # noqa: PLR0917
    name: str,
    part: Part,
    common: Mapping[str, Any],
    values: Mapping[str, Labelled],
    earlier: Mapping[str, Sequence[Cell]],
    out: Path,
) -> Cell:
    labels = {axis: value.label for axis, value in values.items()}
    where = f"{name} ({', '.join(f'{axis} {label}' for axis, label in labels.items())})" if labels else name
    used: set[str] = set()

    def resolved(value: Any) -> Any:
        if is_reference(value, earlier):
            run = _referred(value, labels, earlier)
            used.add(run.recipe.folder_name)
            folder = out / run.recipe.folder_name
            return str(folder / STAGES / str(value["stage"]) if "stage" in value else folder)
        if isinstance(value, Mapping):
            return {key: resolved(inner) for key, inner in value.items()}
        return [resolved(inner) for inner in value] if isinstance(value, list) else value

    base = values[RECIPE_AXIS].settings[RECIPE_AXIS] if RECIPE_AXIS in values else part.recipe
    if base is None:
        raise InputError(f"part {name} of the grid names no recipe. Add recipe: NAME, or an axis recipe: [...].")
    given = [*common.items(), *part.set.items()]
    given += [pair for axis, value in values.items() if axis != RECIPE_AXIS for pair in value.settings.items()]
    try:
        recipe = _bound(base, {full_key(key): resolved(value) for key, value in given})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    kept = yaml.safe_dump(recipe.resolved())  # a later setting may have replaced an earlier reference
    return Cell(name, labels, recipe, frozenset(folder for folder in used if folder in kept))


def _bound(base: str | Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """Loads a recipe with overrides, of which a sparsity goes to wherever the protocol has it."""
    if SPARSITY not in settings:
        return load_recipe(base, settings)
    plain = {key: value for key, value in settings.items() if key != SPARSITY}
    told: dict[str, Any] = {}
    for key, value in plain.items():
        if key.partition(".")[0] == "protocol":
            set_path(told, key, copy.deepcopy(value))
    section = told.get("protocol", {})
    if isinstance(section, Mapping) and "name" not in section:
        section = {**load_recipe(base).protocol.section(), **section}
    return load_recipe(base, plain | sparsity_setting(section, settings[SPARSITY]))


def _referred(reference: Mapping[str, Any], labels: Mapping[str, str], earlier: Mapping[str, Sequence[Cell]]) -> Cell:
    """Finds the run that a reference means: as it says and, on axes that both parts have, as this run."""
    runs = earlier[reference["run"]]
    axes = set().union(*(cell.labels for cell in runs)) if runs else set()
    asked = {key: str(value) for key, value in reference.items() if key not in ("run", "stage")}
    for axis in asked:
        if axis not in axes:
            raise UnknownName(f"axis of part {reference['run']}", axis, sorted(axes))
    wanted = {axis: label for axis, label in labels.items() if axis in axes} | asked
    found = [cell for cell in runs if all(cell.labels.get(axis) == label for axis, label in wanted.items())]
    if len(found) != 1:
        said = ", ".join(f"{axis} {label}" for axis, label in wanted.items()) or "no axis"
        raise InputError(
            f"a value refers to a run of {reference['run']} with {said}, and there are {len(found)}. "
            f"Name its label on each of: {', '.join(sorted(axes)) or 'no axis'}."
        )
    return found[0]


def _distinct(found: list[Cell]) -> list[Cell]:
    """Drops a run that is another one again: what two parts share is run once."""
    known: dict[str, Cell] = {}
    for cell in found:
        known.setdefault(cell.recipe.folder_name, cell)
    return list(known.values())
