"""The recipes of movement pruning and its baselines, held to the paper and to the table that comes with the package."""

import csv
import math
import re
from importlib.resources import files
from typing import Any

import pytest

from experiments import movement
from tests.support.recipes import header
from trainflat.pruning.gates import GATES as GATE_TABLE
from trainflat.pruning.gates import STRUCTURE_GATES
from trainflat.recipe import load_recipe

GATES = {"magnitude": "magnitude", "l0": "l0", "movement": "hard-movement", "soft-movement": "soft-movement"}
WARMUP = {"squad": 5400 / 55330, "mnli": 12000 / 73632, "qqp": 11000 / 68226}  # as a share of the paper's steps
NAMES = [f"paper/{task}-{kind}" for task in WARMUP for kind in GATES]


@pytest.mark.parametrize("name", NAMES)
def test_papers_settings(name: str):
    """Sanh, Wolf and Rush 2020, section 5, and their published commands."""
    task, kind = name.removeprefix("paper/").split("-", 1)
    recipe = load_recipe(name)
    training, gate = recipe.training, recipe.protocol.gate.section()
    epochs, batch, length = (10, 16, 384) if task == "squad" else (6, 32, 128)
    assert recipe.model.name == "bert-base-uncased" and recipe.task.name == task
    assert (training.epochs, training.batch_size, training.max_length) == (epochs, batch, length)
    assert (training.optimizer.name, training.optimizer.lr, training.optimizer.weight_decay) == (
        "adamw",
        3e-5,
        0,
    )
    assert training.warmup == pytest.approx(WARMUP[task], abs=5e-4) and training.schedule == "linear"
    assert recipe.protocol.freeze_embeddings and gate["name"] == GATES[kind]
    assert gate.get("score_lr") == {"magnitude": None, "l0": 0.1}.get(kind, 1e-2)
    assert gate.get("sparsity", gate.get("target_sparsity")) == 0.9
    curve = {"name": "cubic", "start": training.warmup, "hold": pytest.approx(2 * training.warmup, abs=2e-3)}
    assert gate["schedule"] == curve
    assert (training.max_grad_norm, training.optimizer.eps, training.optimizer.betas) == (1, 1e-8, (0.9, 0.999))


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_the_header_are_the_papers_way(name: str):
    """A teacher that Adam fine-tuned, their code's weights of both losses, and lambda with the schedule it rises by."""
    task, kind = name.removeprefix("paper/").split("-", 1)
    text = " ".join(line.strip() for line in header(name))
    [teaching] = re.findall(r"--set '(training\.distillation=[^']+)'", text)
    taught = load_recipe(name, [teaching]).training.distillation
    assert (taught.weight, taught.temperature) == (0.5, 2.0)
    [teacher] = re.findall(rf"paper/{task}-imp --set protocol=dense --set '([^']+)'", text)
    optimizer = load_recipe(f"paper/{task}-imp", ["protocol=dense", teacher]).training.optimizer
    assert (optimizer.name, optimizer.weight_decay) == ("adam", 0)
    gates = [load_recipe(name, [g]).protocol.gate.section() for g in re.findall(r"'(protocol\.gate=\{[^']+)'", text)]
    own = load_recipe(name).protocol.gate.section()
    lambdas = {"soft-movement": (400.0, own["schedule"]), "l0": (125.0, {"name": "constant", "start": 0, "hold": 0})}
    assert [(gate["penalty"], gate["schedule"]) for gate in gates] == [lambdas[k] for k in lambdas if k == kind]
    changed = {"penalty", "schedule", "target_sparsity"}
    assert all({**gate, **{k: own[k] for k in changed}} == own for gate in gates)


@pytest.mark.parametrize("name", NAMES)
def test_departures_are_listed(name: str):
    task, kind = name.removeprefix("paper/").split("-", 1)
    text = " ".join(line.strip() for line in header(name))
    assert ("the pooler is" in text) is (task != "squad")
    assert ("10,784" in text) is (task == "squad")
    assert ("a pruned weight may come back" in text) is (kind == "magnitude")
    assert ("keeps 0.5 %" in text) is (kind == "soft-movement")
    assert "without a teacher; the weights of both losses are that code's defaults" in text


@pytest.mark.parametrize("name", NAMES)
def test_expected_figures_are_those_of_the_table(name: str):
    task, kind = name.removeprefix("paper/").split("-", 1)
    with (files("trainflat") / "report/reference/movement_with_distillation.csv").open(encoding="utf8") as file:
        rows: list[dict[str, Any]] = [r for r in csv.DictReader(file) if r["task"] == task]
    told = {r["remaining_weights_percent"]: r["value"] for r in rows if r["method"] == kind.replace("-", "_")}
    text = " ".join(line.strip() for line in header(name))
    assert f"{told['10'].replace('/', ' / ')} where 10% of the weights remain" in text
    assert f"{told['3'].replace('/', ' / ')} where 3% do" in text and "the paper's figures, not ours" in text


@pytest.mark.parametrize(("kind", "method"), [*zip(GATES, ("magnitude", "l0", "hard", "soft"), strict=True)])
def test_small_settings_are_those_of_the_experiment_but_for_what_is_told(kind: str, method: str):
    text = " ".join(line.strip() for line in header(f"small/sst2-{kind}"))
    assert "but for 3 epochs in place of 2.5, fp32 in place of bf16, the best evaluation in place of the last" in text
    ours, theirs = (
        load_recipe(one).resolved() for one in (f"small/sst2-{kind}", movement.pruning(method, 0.1, 0, "teacher"))
    )
    told = {"epochs": (3, 2.5), "precision": ("fp32", "bf16"), "keep": ("best", "last")}
    assert {key: (ours["training"].pop(key), theirs["training"].pop(key)) for key in told} == told
    assert theirs["training"].pop("distillation") and "no teacher unless told" in text
    for one in (ours, theirs):
        del one["name"], one["evaluation"]
    rates = [one["protocol"]["gate"].pop("score_lr", 0) for one in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-3)
    assert ours == theirs


@pytest.mark.parametrize("kind", GATES)
def test_small_settings_follow_the_papers(kind: str):
    """The same gates with a slower ramp; rates of scores keep the published ratio to that of the weights."""
    recipe, paper = load_recipe(f"small/sst2-{kind}"), load_recipe(f"paper/mnli-{kind}")
    gate, published = recipe.protocol.gate.section(), paper.protocol.gate.section()
    own = {"schedule", "score_lr", "refresh"}
    assert {k: v for k, v in gate.items() if k not in own} == {k: v for k, v in published.items() if k not in own}
    phase = 2 * recipe.training.warmup
    assert gate["schedule"] == {"name": "linear", "start": phase, "hold": phase}
    assert recipe.protocol.freeze_embeddings and recipe.training.optimizer.weight_decay == 0
    ratios = [r.protocol.gate.section().get("score_lr", 0) / r.training.optimizer.lr for r in (recipe, paper)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.01)


@pytest.mark.parametrize(("task", "warmup", "held", "epochs"), [("mnli", 12000, 4, 12), ("squad", 5400, 10, 20)])
def test_papers_settings_of_block_movement(task: str, warmup: int, held: int, epochs: int):
    """Lagunas et al. 2021 and the commands of nn_pruning."""
    recipe, text = load_recipe(f"paper/{task}-block"), " ".join(line.strip() for line in header(f"paper/{task}-block"))
    training, gate = recipe.training, recipe.protocol.gate.section()
    batch, length, rows = (16, 384, 88524) if task == "squad" else (32, 128, 392702)
    share = warmup / (math.ceil(rows / batch) * epochs)
    assert (training.epochs, training.batch_size, training.max_length) == (epochs, batch, length)
    assert (training.optimizer.name, training.optimizer.lr, training.optimizer.weight_decay) == ("adamw", 3e-5, 0)
    assert training.warmup == pytest.approx(share, rel=5e-3)
    assert gate["schedule"] == {
        "name": "cubic",
        "start": training.warmup,
        "hold": pytest.approx(held * share, rel=5e-3),
    }
    defaults = GATE_TABLE.read("block-movement").section()
    assert {**gate, "schedule": defaults["schedule"]} == defaults
    assert not recipe.protocol.freeze_embeddings
    for said in ("published figures, not ours", "a head without queries or keys is kept", "filled models"):
        assert said in text
    [teaching] = re.findall(r"--set '(training\.distillation=[^']+)'", text)
    taught = load_recipe(f"paper/{task}-block", [teaching]).training.distillation
    assert (taught.weight, taught.temperature) == (0.9, 2.0)


def test_small_settings_of_block_movement_are_those_of_the_others():
    ours, theirs = (load_recipe(f"small/sst2-{kind}").resolved() for kind in ("block", "soft-movement"))
    gates = [one["protocol"].pop("gate") for one in (ours, theirs)]
    for one in (ours, theirs):
        del one["name"]
    assert ours == theirs
    assert [gate["schedule"] for gate in gates] == [gates[0]["schedule"]] * 2
    assert gates[0]["score_lr"] == gates[1]["score_lr"]


def test_settings_of_grain_are_those_of_its_code():
    """Temperature 8 without its square and both parts of the loss once, as a share; and the small recipe follows."""
    recipe, text = load_recipe("paper/mnli-grain"), " ".join(line.strip() for line in header("paper/mnli-grain"))
    training = recipe.training
    adam = training.optimizer
    assert (training.epochs, training.batch_size, training.warmup, training.max_grad_norm) == (20, 32, 0.1, 1)
    assert (adam.name, adam.lr, adam.weight_decay, adam.eps) == ("adamw", 3e-5, 0.01, 1e-6)
    assert recipe.protocol.method.section() == STRUCTURE_GATES.read("grain").section()
    assert training.evaluate_every == math.ceil(392702 / 32) / 2
    for departure in ("word embeddings stay whole", "fp32, there fp16", "units go after a step", "seed 0, there 1337"):
        assert departure in text
    small = load_recipe("small/sst2-grain")
    for one, depth in ((recipe, 12), (small, 6)):
        taught, layers = one.training.distillation, one.training.features()["layerwise"]
        assert (taught.weight, taught.temperature) == (1, 8)
        assert layers.weight / (1 - layers.weight) == pytest.approx(8**2, rel=1e-6)
        assert (layers.teacher_layers, layers.matching, layers.map) == ([*range(0, depth + 1, 2)], "fixed", "separate")
        assert not one.protocol.freeze_embeddings and one.protocol.finetune is None
    gates = [one.protocol.method.section() | {"target_sparsity": None} for one in (recipe, small)]
    assert gates[0] == gates[1]
