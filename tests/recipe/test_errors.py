"""What a recipe refuses, in one line each: where, what, and the next move."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.recipes import ITERATIVE, REFUSED, SOUND
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.yaml_values import parse_yaml
from trainflat.recipe import Recipe, load_recipe
from trainflat.training.features import FEATURES


@pytest.mark.parametrize("case", REFUSED)
def test_override_is_refused(case: str):
    overrides, message = REFUSED[case]
    with pytest.raises(InputError) as error:
        load_recipe(SOUND, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"task: cola\nmodel: [minilm\n", "is not YAML: while parsing a flow sequence"),
        (b"task: cola\n\tmodel: minilm\n", "is not YAML: while scanning"),
        (b"task: caf\xe9\n", "is not YAML: 'utf-8' codec can't decode byte 0xe9 in position 9"),
        (b"task: cola\nmodel: minilm\ntask: rte\n", "is not YAML: the key 'task' occurs twice"),
        (b"task: {name: cola, rows: 1, rows: 2}\nmodel: minilm\n", "the key 'rows' occurs twice"),
        (b"task: !!python/object/apply:os.getcwd []\nmodel: minilm\n", "could not determine a constructor for the tag"),
        (b"", "holds no recipe: a mapping with at least task and model is expected."),
        (b"- task\n", "holds no recipe"),
        (b"task: cola\n", "model is missing. Add it."),
        (b"model: minilm\n", "task is missing. Add it."),
        (b"task: cola\nmodel: minilm\n1: 2\n", "1 is not a key of recipes"),
        (b"task: cola\nmodel: minilm\ntraining: {epoch: 2}\n", "training.epoch is not a key of recipes. Did you mean"),
    ],
)
def test_file_is_refused_by_name(contents: bytes, message: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(contents)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert message in str(error.value) and str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mine.yaml", "./mine", "/nowhere/mine.yml", "../mine"])
def test_missing_file(name: str):
    with pytest.raises(InputError, match=r"there is no recipe file .*mine.*trainflat list"):
        load_recipe(name)


@pytest.mark.parametrize("name", ["", " "])
def test_no_name(name: str):
    with pytest.raises(InputError, match=r"^the name of the recipe is empty\. Give a file, or a name"):
        load_recipe(name)


def test_unknown_name_shows_the_nearest(tmp_path: Path):
    with pytest.raises(UnknownName, match=r"no recipe is called 'paper/cola-im'\. Did you mean 'paper/cola-imp'"):
        load_recipe("paper/cola-im")
    with pytest.raises(InputError):
        load_recipe(tmp_path)  # a folder


def test_file_beats_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "demo-sam").write_text("{name: mine, task: rte, model: minilm}", encoding="utf8")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("demo-sam").name == "mine"


@pytest.mark.parametrize("key", [key for key, kind in FEATURES.items() if kind.in_recipes])
def test_null_leaves_a_feature_out(key: str):
    plain = load_recipe(SOUND)
    assert load_recipe(SOUND, {f"training.{key}": None}).hash == plain.hash
    assert load_recipe(SOUND, {f"training.{key}": None}).training.features().get(key) is None
    taught = load_recipe(SOUND, {"training.distillation": "folder", "training.layerwise": True})
    assert load_recipe(taught, [f"training.{key}=null"]).training.features().get(key) is None


def test_short_forms_take_options():
    recipe = load_recipe(SOUND, ["task.rows=100", "model.layers=2", "protocol=one-shot", "protocol.sparsities=[0.5]"])
    assert recipe.task.name == "cola" and recipe.task.rows == 100
    assert recipe.model.name == "minilm" and recipe.model.layers == 2
    assert recipe.protocol.section() == {
        "name": "one-shot",
        "sparsities": [0.5],
        "pruner": "magnitude",
        "scope": "global",
    }
    recipe = load_recipe(SOUND | {"training": {"optimizer": "sam"}}, ["training.optimizer.rho=1e-2"])
    assert (recipe.training.optimizer.name, recipe.training.optimizer.rho) == ("sam", 0.01)


def test_later_override_wins_and_the_given_recipe_is_left_alone():
    given: dict[str, Any] = {"task": {"name": "cola"}, "model": {"name": "minilm"}, "training": {"epochs": 1}}
    recipe = load_recipe(given, ["training.epochs=2", "training.epochs=3", "task.rows=7", "model.layers=1"])
    assert recipe.training.epochs == 3
    assert given == {"task": {"name": "cola"}, "model": {"name": "minilm"}, "training": {"epochs": 1}}
    assert load_recipe(recipe, {"training.epochs": 4}).training.epochs == 4


@pytest.mark.parametrize("text", ["2e-5", "2.0e-5", "2E-5", "+2e-5", ".2e-4", "0.00002"])
def test_exponents_are_numbers(text: str, tmp_path: Path):
    assert parse_yaml(text) == 2e-5
    path = tmp_path / "mine.yaml"
    path.write_text(f"task: cola\nmodel: minilm\ntraining: {{optimizer: {{name: adam, lr: {text}}}}}", encoding="utf8")
    assert load_recipe(path).training.optimizer.lr == 2e-5


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_as_python_writes_it(value: float):
    assert parse_yaml(repr(value)) == value and parse_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize("text", ["1e", "e5", "2e-5x", "1.2.3e4", "minilm", "none"])
def test_words_stay_words(text: str):
    assert parse_yaml(text) == text


def test_hash_counts_what_is_run_and_survives_the_file(tmp_path: Path):
    recipe = load_recipe(SOUND, ["training.optimizer={name: sam, lr: 2e-5}", ITERATIVE + "sparsities: [0.3, 0.9]}"])
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.resolved()), encoding="utf8")
    assert load_recipe(path) == recipe and load_recipe(path).hash == recipe.hash
    assert load_recipe(recipe, ["training.report_to=[tensorboard]"]).hash == recipe.hash
    changed = ["seed=1", "training.epochs=4", "task.rows=9", "model.layers=2", "protocol.rewind=none", "name=other"]
    assert len({load_recipe(recipe, [one]).hash for one in changed} | {recipe.hash}) == len(changed) + 1


def test_defaults_are_resolved():
    plain = load_recipe(SOUND)
    assert plain.protocol.section() == {"name": "dense"} and plain.resolved()["training"]["batch_size"] == 32
    said = load_recipe(SOUND, ["task.holdout=0.0", "training.epochs=3", "seed=0"])
    assert said.hash == plain.hash  # a default that is written down is the same recipe
    assert Recipe.model_validate(plain.resolved()) == plain


def test_paths_of_a_protocol_are_paths():
    recipe = load_recipe(SOUND, ["protocol={name: ticket, sparsity: 0.5, run: runs/found}"])
    assert recipe.protocol.section()["run"] == "runs/found"
    assert recipe.protocol.build().source == Path("runs/found")


@pytest.mark.parametrize("text", ["task: &a {name: cola, x: *a}", "task: {name: cola, x: &a [*a]}"])
def test_an_alias_that_contains_itself_is_one_line(text: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}\nmodel: minilm\n", encoding="utf8")
    with pytest.raises(InputError, match=r"an alias .* contains itself"):
        load_recipe(path)
