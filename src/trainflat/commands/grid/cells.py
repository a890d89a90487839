"""Crosses the axes of a grid, and puts the folders of runs where others refer to them."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainflat.commands.grid.spec import Grid, Part
from trainflat.commands.grid.values import SPARSITY, Labelled, as_text, axis_values, full_key, sparsity_setting
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.protocols.store import STAGES
from trainflat.recipe import Recipe, load_recipe
from trainflat.recipe.overrides import set_path

_MOST = 10_000  # runs; beyond, a value was mistyped
_RECIPE = "recipe"  # the axis whose values are not overrides


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
    base = values[_RECIPE].settings[_RECIPE] if _RECIPE in values else part.recipe
    if base is None:
        raise InputError(f"part {name} of the grid names no recipe. Add recipe: NAME, or an axis recipe: [...].")
    given = [*common.items(), *part.set.items()]
    given += [pair for axis, value in values.items() if axis != _RECIPE for pair in value.settings.items()]
    references = _References(labels, earlier, out)
    try:
        recipe = _bound(base, {full_key(key): references.resolved(value) for key, value in given})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    kept = yaml.safe_dump(recipe.resolved())  # a later setting may have replaced an earlier reference
    return Cell(name, labels, recipe, frozenset(folder for folder in references.used if folder in kept))


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


@dataclass
class _References:
    """Puts folders in place of ``{run: PART, AXIS: LABEL, stage: STAGE}`` in the settings of one run.

    Attributes:
        labels: Of the run, by axis.
        earlier: Runs of the parts that may be referred to.
        out: Where runs make their folders.
        used: Names of the folders that were put in place.
    """

    labels: Mapping[str, str]
    earlier: Mapping[str, Sequence[Cell]]
    out: Path
    used: set[str] = field(default_factory=set)

    def resolved(self, value: Any) -> Any:
        """Returns a setting in which every reference is a path."""
        if isinstance(value, Mapping) and "name" not in value and isinstance(value.get("run"), str):
            name = self._meant(value).recipe.folder_name
            self.used.add(name)
            return str(self.out / name / STAGES / str(value["stage"]) if "stage" in value else self.out / name)
        if isinstance(value, Mapping):
            return {key: self.resolved(inner) for key, inner in value.items()}
        return [self.resolved(inner) for inner in value] if isinstance(value, list) else value

    def _meant(self, reference: Mapping[str, Any]) -> Cell:
        """Finds the run: as the reference says and, on axes that both parts have, with the labels of this run."""
        part = reference["run"]
        if not self.earlier.get(part):
            raise UnknownName("earlier part of the grid", part, [name for name in self.earlier if self.earlier[name]])
        axes = set().union(*(cell.labels for cell in self.earlier[part]))
        asked = {key: as_text(value) for key, value in reference.items() if key not in ("run", "stage")}
        if strange := sorted(asked.keys() - axes):
            raise UnknownName(f"axis of part {part}", strange[0], sorted(axes))
        wanted = {axis: label for axis, label in self.labels.items() if axis in axes} | asked
        found = [cell for cell in self.earlier[part] if wanted.items() <= cell.labels.items()]
        if len(found) != 1:
            said = ", ".join(f"{axis} {label}" for axis, label in wanted.items()) or "no axis"
            raise InputError(
                f"a value refers to a run of {part} with {said}, and there are {len(found)}. "
                f"Name its label on each of: {', '.join(sorted(axes)) or 'no axis'}."
            )
        return found[0]


def _distinct(found: list[Cell]) -> list[Cell]:
    """Drops a run that is another one again: what two parts share is run once."""
    known: dict[str, Cell] = {}
    for cell in found:
        known.setdefault(cell.recipe.folder_name, cell)
    return list(known.values())
