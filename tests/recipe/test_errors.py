"""What a recipe refuses, in one line each: where, what, and the next move."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.yaml_values import parse_yaml
from trainflat.protocols import PROTOCOLS
from trainflat.recipe import Recipe, build, load_recipe

SOUND = {"task": "cola", "model": "minilm"}
ITERATIVE = "protocol={name: iterative, "

REFUSED: dict[str, tuple[list[str], str]] = {
    "unknown section": (["trainig.epochs=2"], "trainig is not a key of recipes. Did you mean 'training'?"),
    "unknown key": (["training.epoch=2"], "training.epoch is not a key of recipes. Did you mean 'epochs'?"),
    "unknown key, deep": (["evaluation.latency.batchs=[1]"], "evaluation.latency.batchs is not a key of recipes. Did"),
    "key of the model": (["model.layer=1"], "model.layer is not a key of recipes. Did you mean 'layers'? Known here:"),
    "wrong type": (["training.epochs=two"], "training.epochs: a number is expected, got 'two'."),
    "value is shown": (["training.epochs=two"], "got 'two'."),
    "wrong type in a list": (["evaluation.latency.batches=[1, a]"], "evaluation.latency.batches.1: a whole number is"),
    "below the least": (["evaluation.latency.batches=[0]"], "evaluation.latency.batches.0: a number of at least 1"),
    "no mapping": (["training=3"], "training: a mapping is expected, got 3."),
    "nothing": (["model="], "model: a mapping is expected, got nothing."),
    "not a number": (["training.warmup=.nan"], "training.warmup: "),
    "name for a folder": (["name=../up"], "name: letters, digits and . _ - make a run's folder"),
    "empty name": (["name="], "name: text is expected, got nothing."),
    "nothing for a name": (
        ["name=''"],
        "name: letters, digits and . _ - make a run's folder, a letter or digit first; got ''.",
    ),
    "name of a folder, too long": (["name=" + "a" * 300], "so 200 characters at most; got 300."),
    "truth for a number": (["training.epochs=true"], "training.epochs: a number is expected, got true."),
    "truth for a seed": (["seed=yes"], "seed: a number is expected, got true."),
    "truth in a task": (["task.rows=true"], "task.rows: a number is expected, got true."),
    "truth in a list": (["evaluation.latency.batches=[true]"], "evaluation.latency.batches: a number is expected"),
    "union": (["training.evaluate_every=never"], "training.evaluate_every: 'epoch' or a whole number is expected"),
    "union, number": (["training.evaluate_every=0"], "training.evaluate_every: 'epoch' or a number of at least 1 is"),
    "choice": (["training.schedule=cosin"], "training.schedule: 'linear', 'constant' or 'cosine' is expected, got"),
    "together": (["training.batch_size=33", "training.accumulate=2"], "training: batch_size 33 cannot be cut into acc"),
    "unknown task": (["task=colla"], "task: no task is called 'colla'. Did you mean 'cola'? Known: cola,"),
    "unknown protocol": (["protocol=iterativ"], "protocol: no protocol is called 'iterativ'. Did you mean 'iterative'"),
    "unknown pruner": ([ITERATIVE + "pruner: magnitud}"], "no pruner is called 'magnitud'. Did you mean 'magnitude'?"),
    "unknown optimizer": (["training.optimizer=samm"], "training.optimizer: no optimizer is called 'samm'. Did you me"),
    "unknown base": (["training.optimizer={name: sam, base: adamww}"], "no base optimizer is called 'adamww'. Did you"),
    "unknown option of a task": (["task.rws=5"], "task: no option of task 'cola' is called 'rws'. Did you mean 'rows'"),
    "option of another task": (["task.doc_stride=5"], "no option of task 'cola' is called 'doc_stride'."),
    "what the pipeline gives": (["task.seed=5"], "no option of task 'cola' is called 'seed'."),
    "unknown option of a protocol": ([ITERATIVE + "sparsity: 0.3}"], "is called 'sparsity'. Did you mean 'sparsities'"),
    "unknown option of an optimizer": (["training.optimizer={name: sam, roh: 1}"], "is called 'roh'. Did you mean 'rh"),
    "option of the wrong type": (["task.rows=1.5"], "task: rows: a whole number is expected, got 1.5."),
    "option, choice": ([ITERATIVE + "scope: row}"], "protocol: scope: 'global' or 'layer' is expected, got 'row'."),
    "option, list": ([ITERATIVE + "sparsities: [a]}"], "protocol: sparsities: a number is expected, got ['a']."),
    "option, order": ([ITERATIVE + "sparsities: [0.5, 0.3]}"], "ascending, got 0.3 after 0.5."),
    "option, sign": ([ITERATIVE + "rewind: -1}"], "protocol: rewind is a step of the dense training or none, got -1."),
    "option, not a number": (
        [ITERATIVE + "sparsities: [.nan]}"],
        "protocol: sparsities: finite numbers are expected, got [nan].",
    ),
    "tracker": (
        ["training.report_to=[tensorbord]"],
        "training.report_to: no tracker is called 'tensorbord'. Did you mean",
    ),
    "options that need each other": (["protocol={name: ticket, sparsity: 0.5}"], "protocol: run is missing: a found t"),
    "missing option": (["task=files"], "recipe: task 'files' needs train_file."),
    "no member": (["task={rows: 3}"], "task: name a task: cola, mrpc,"),
    "negative radius": (["training.optimizer={name: sam, rho: -1}"], "training.optimizer: rho is a number >= 0, got -"),
    "keys of a number": (["seed=1", "seed.x=1"], "--set seed.x: seed holds 1, which has no keys."),
    "keys of a list": (["task.evaluate=[a]", "task.evaluate.b=1"], "--set task.evaluate.b: evaluate holds ['a']"),
    "number as a key": (["task={name: cola, 1: 2}"], "1 is not a key of recipes, which are words."),
    "no value": (["training.epochs"], "--set takes key=value such as training.epochs=2, got 'training.epochs'."),
    "no key": (["=2"], "--set takes key=value"),
    "empty key": (["training..epochs=2"], "--set takes key=value such as training.epochs=2, got 'training..epochs=2'."),
    "not YAML": (["training.epochs=[1"], "--set training.epochs: '[1' is not a YAML value."),
    "no such date": (["name=2024-13-01"], "--set name: '2024-13-01' is not a YAML value."),
}


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


def test_short_forms_take_options():
    recipe = load_recipe(SOUND, ["task.rows=100", "model.layers=2", "protocol=one-shot", "protocol.sparsities=[0.5]"])
    assert recipe.task["name"] == "cola" and recipe.task["rows"] == 100
    assert recipe.model.name == "minilm" and recipe.model.layers == 2
    assert recipe.protocol == {"name": "one-shot", "sparsities": [0.5], "pruner": "magnitude", "scope": "global"}
    recipe = load_recipe(SOUND | {"training": {"optimizer": "sam"}}, ["training.optimizer.rho=1e-2"])
    assert (recipe.training.optimizer["name"], recipe.training.optimizer["rho"]) == ("sam", 0.01)


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
    assert load_recipe(path).training.optimizer["lr"] == 2e-5


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
    assert plain.protocol == {"name": "dense"} and plain.resolved()["training"]["batch_size"] == 32
    said = load_recipe(SOUND, ["task.holdout=0.0", "training.epochs=3", "seed=0"])
    assert said.hash == plain.hash  # a default that is written down is the same recipe
    assert Recipe.model_validate(plain.resolved()) == plain


def test_paths_of_a_protocol_are_paths():
    recipe = load_recipe(SOUND, ["protocol={name: ticket, sparsity: 0.5, run: runs/found}"])
    assert recipe.protocol["run"] == "runs/found"
    assert build(PROTOCOLS, recipe.protocol).source == Path("runs/found")  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["task: &a {name: cola, x: *a}", "task: {name: cola, x: &a [*a]}"])
def test_an_alias_that_contains_itself_is_one_line(text: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}\nmodel: minilm\n", encoding="utf8")
    with pytest.raises(InputError, match=r"an alias .* contains itself"):
        load_recipe(path)
