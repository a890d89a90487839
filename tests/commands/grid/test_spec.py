"""What a grid file says becomes runs: crossed axes, short names, references to other runs, and faults in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainflat.commands.grid.cells import cells
from trainflat.commands.grid.spec import read_grid
from trainflat.core.errors import InputError
from trainflat.recipe import load_recipe

RECIPE = {"task": "stdlib-docs", "model": "minilm", "protocol": {"name": "one-shot", "sparsities": [0.5]}}
OUT = Path("runs")
FOUND = {"recipe": RECIPE, "axes": {"optimizer": ["adamw", "sam"], "seed": [0, 1]}}


def crossed(**grid: Any) -> list[Any]:
    return cells(read_grid(grid), OUT)


def test_axes_are_crossed_the_last_one_fastest() -> None:
    found = crossed(**FOUND)
    assert [cell.labels for cell in found] == [
        {"optimizer": one, "seed": seed} for one in ("adamw", "sam") for seed in ("0", "1")
    ]
    assert [(cell.recipe.training.optimizer.name, cell.recipe.seed) for cell in found] == [
        ("adamw", 0),
        ("adamw", 1),
        ("sam", 0),
        ("sam", 1),
    ]


def test_a_run_of_a_grid_is_the_run_of_its_recipe() -> None:
    [cell] = crossed(recipe=RECIPE, axes={"optimizer": [{"name": "sam", "rho": 0.1}], "training.epochs": [2]})
    training = {"optimizer": {"name": "sam", "rho": 0.1}, "epochs": 2}
    assert cell.recipe.hash == load_recipe(RECIPE | {"training": training}).hash


def test_labels_that_a_name_does_not_tell_apart_show_what_does() -> None:
    found = crossed(recipe=RECIPE, axes={"optimizer": [{"name": "sam", "rho": rho} for rho in (0.1, 0.2)]})
    assert [cell.title for cell in found] == ["sam rho 0.1", "sam rho 0.2"]


def test_a_mapping_sets_several_keys_under_one_label() -> None:
    both = {"long": {"training.epochs": 4, "training.optimizer": "sam"}, "short": {"training.epochs": 1}}
    found = crossed(recipe=RECIPE, axes={"plan": both})
    assert [(cell.title, cell.recipe.training.epochs) for cell in found] == [("long", 4), ("short", 1)]


@pytest.mark.parametrize(
    ("protocol", "key"),
    [
        ({"name": "one-shot"}, lambda protocol: protocol.sparsities),
        ({"name": "iterative"}, lambda protocol: protocol.sparsities),
        ({"name": "ticket", "structure": "random"}, lambda protocol: (protocol.sparsity,)),
        ({"name": "gradual"}, lambda protocol: (protocol.gate.sparsity,)),
        ({"name": "structured", "method": "cofi"}, lambda protocol: (protocol.method.target_sparsity,)),
    ],
)
def test_sparsity_goes_to_wherever_the_protocol_has_it(protocol: dict[str, Any], key: Any) -> None:
    found = crossed(recipe=RECIPE, set={"protocol": protocol}, axes={"sparsity": [0.25, 0.75]})
    assert [tuple(key(cell.recipe.protocol)) for cell in found] == [(0.25,), (0.75,)]


def test_a_reference_becomes_the_folder_of_the_run_that_agrees_on_shared_axes() -> None:
    ticket = {"name": "ticket", "sparsity": 0.5, "run": {"run": "found", "optimizer": "sam"}}
    trained = {"recipe": RECIPE, "set": {"protocol": ticket}, "axes": {"seed": [0, 1]}}
    found = crossed(parts={"found": FOUND, "trained": trained})
    by_labels = {tuple(cell.labels.values()): cell.recipe.folder_name for cell in found if cell.part == "found"}
    for cell in (cell for cell in found if cell.part == "trained"):
        finder = by_labels["sam", cell.labels["seed"]]
        assert cell.recipe.protocol.run == OUT / finder
        assert cell.needs == {finder}


def test_a_reference_with_a_stage_becomes_its_folder() -> None:
    pruned = {"recipe": RECIPE, "set": {"model": {"run": "found", "stage": "dense", "optimizer": "adamw", "seed": 0}}}
    *found, last = crossed(parts={"found": FOUND, "pruned": pruned})
    assert last.recipe.model.name == str(OUT / found[0].recipe.folder_name / "stages" / "dense")


def test_a_reference_that_a_later_setting_replaces_is_not_waited_for() -> None:
    axes = {"source": {"none": {"protocol": {"name": "ticket", "sparsity": 0.5, "structure": "random"}}}}
    ticket = {"name": "ticket", "sparsity": 0.5, "run": {"run": "found", "optimizer": "sam", "seed": 0}}
    [*_, last] = crossed(
        parts={"found": FOUND, "trained": {"recipe": RECIPE, "set": {"protocol": ticket}, "axes": axes}}
    )
    assert last.needs == frozenset()


def test_a_run_that_two_parts_share_is_there_once() -> None:
    assert len(crossed(parts={"one": FOUND, "two": {"recipe": RECIPE, "set": {"training.optimizer": "sam"}}})) == 4


def test_overrides_reach_every_run_and_yield_to_axes(tmp_path: Path) -> None:
    path = tmp_path / "rho.yaml"
    path.write_text(yaml.safe_dump({"recipe": RECIPE, "axes": {"seed": [3]}}))
    grid = read_grid(path)
    [cell] = cells(grid, OUT, {"training.epochs": 2, "seed": 5})
    assert (grid.name, cell.recipe.training.epochs, cell.recipe.seed) == ("rho", 2, 3)


def test_recipes_may_be_an_axis() -> None:
    found = crossed(axes={"recipe": ["small/stsb-imp", "small/cola-imp"]})
    assert [cell.recipe.task.name for cell in found] == ["stsb", "cola"]


TWO = {"parts": {"found": FOUND, "later": {"recipe": RECIPE, "set": {"model": {"run": "found", "stage": "dense"}}}}}


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"recipes": 1}, "grid: recipes is not a key of grids. Known here: axes, name, parts, recipe, set."),
        ({"parts": {"a": {"recip": 2}}}, "grid: parts.a.recip is not a key of grids. Known here: axes, recipe, set."),
        ({"recipe": RECIPE, "axes": {"seed": []}}, "grid: axes.seed: a list of 1 or more values is expected, got []."),
        ({"recipe": RECIPE, "axes": {"sead": [1]}}, "sead is not a key of recipes. Did you mean 'seed'?"),
        ({"recipe": RECIPE, "axes": {"seed": [1, 1]}}, "axis seed holds 1 twice."),
        ({"recipe": RECIPE, "axes": {"seed": ["x"]}}, "runs (seed x): "),
        ({"axes": {"seed": [1]}}, "part runs of the grid names no recipe."),
        ({"recipe": RECIPE, "axes": {"seed": list(range(101)), "training.epochs": list(range(1, 101))}}, "10,100 runs"),
        ({"recipe": 3}, "grid: recipe: text or a mapping is expected, got 3."),
        (
            {"recipe": RECIPE, "name": "a/b"},
            "grid: name is letters, digits and . _ -, a letter",
        ),
        ({"recipe": RECIPE, "set": {"model": {"run": "fonud"}}}, "no earlier part of the grid is called 'fonud'"),
        (TWO, "later: a value refers to a run of found with no axis, and there are 4. Name its label on each of"),
        ({"recipe": RECIPE, "set": {"protocol": "dense"}, "axes": {"sparsity": [0.5]}}, "dense has no sparsity to set"),
        ({"recipe": RECIPE, "parts": {"a": {"recipe": RECIPE}}}, "recipe and axes stand in each part"),
    ],
)
def test_a_fault_is_one_line_that_names_it(grid: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        crossed(**grid)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_axis_of_a_reference_is_named() -> None:
    late = {"recipe": RECIPE, "set": {"model": {"run": "found", "stage": "dense", "optimiser": "sam"}}}
    with pytest.raises(InputError, match=r"no axis of part found is called 'optimiser'\. Did you mean 'optimizer'"):
        crossed(parts={"found": FOUND, "late": late})


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no grid file"):
        read_grid(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="holds no grid"):
        read_grid(tmp_path / "list.yaml")
