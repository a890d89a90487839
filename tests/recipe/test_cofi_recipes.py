"""The recipes with CoFi's published settings (Xia, Zhong and Chen 2022) have them, and quote the published figures."""

import csv
from importlib.resources import files
from typing import Any

import pytest

from tests.support.recipes import FEW_ROWS, RECIPES, header
from trainflat.pruning.gates import final_sparsity
from trainflat.recipe import load_recipe

# Score, sparsity and speed of the published models, as the README of CoFi's code lists them, at about 60 and 95 %.
PUBLISHED = {
    "mnli": (("85.3", "60.2", "2.1"), ("80.6", "94.3", "12.1")),
    "qnli": (("91.8", "60.3", "2.1"), ("86.1", "94.5", "12.1")),
    "sst2": (("93.0", "60.1", "2.1"), ("90.4", "94.5", "12.2")),
    "squad": (("89.1", "59.8", "2.0"), ("82.6", "92.4", "8.7")),
    "rte": (("72.6", "60.2", "2.0"), ("66.1", "96.2", "12.8")),
    "cola": (("60.4", "60.4", "2.0"), ("38.9", "95.1", "12.3")),
    "mrpc": (("86.8", "61.5", "2.0"), ("83.6", "94.9", "12.2")),
}
CASES = [(task, place, size) for task in PUBLISHED for place, size in enumerate((60, 95))]
cases = pytest.mark.parametrize(("task", "place", "size"), CASES, ids=[f"{task}-{size}" for task, _, size in CASES])


def test_there_is_one_for_every_published_model() -> None:
    named = {f"paper/{task}-cofi-{size}" for task, _, size in CASES}
    assert {name for name in RECIPES if name.startswith("paper/") and "-cofi-" in name} == named


@cases
def test_settings(task: str, place: int, size: int) -> None:
    """The README's table and ``scripts/run_CoFi.sh``."""
    recipe = load_recipe(f"paper/{task}-cofi-{size}")
    training, protocol = recipe.training, recipe.protocol.build()
    squad, few = task == "squad", task in FEW_ROWS
    epochs, dense, rising = (100, 4, 20) if few else (20, 1, 2)
    lr, batch, length = (3e-5, 16, 384) if squad else (2e-5, 32, 128)
    assert (recipe.task.name, recipe.model.name, recipe.model.layers) == (task, "bert-base-uncased", None)
    assert (training.epochs, training.batch_size, training.max_length) == (epochs, batch, length)
    optimizer = {"name": "adamw", "lr": lr, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}
    assert optimizer.items() <= training.optimizer.section().items()
    assert (training.schedule, training.warmup, training.max_grad_norm) == ("linear", 0.0, 1.0)
    assert (training.evaluate_every, training.keep) == (50 if few else 500, "best")
    assert training.distillation.dump() == {"teacher": "dense", "weight": 1.0, "temperature": 2.0}
    layers = training.features()["layerwise"].build()
    assert (layers.weight, layers.map, layers.padding) == (0.9, "shared", "include")
    assert (layers.matching, layers.layers_of(12)) == ("ordered" if few else "nearest", [3, 6, 9, 12])
    gate, steps = protocol.method, 1000 * epochs
    assert (gate.name, final_sparsity(gate)) == ("cofi", size / 100)
    assert (gate.score_lr, gate.multiplier_lr, gate.init, gate.hidden, gate.restart) == (
        0.01,
        0.01,
        "published",
        True,
        True,
    )
    start, hold = gate.schedule.lengths(steps)
    assert (start, steps - start - hold) == (1000 * dense, 1000 * rising)
    assert (protocol.start, protocol.freeze_embeddings) == ("pretrained", True)
    last = protocol.finetune
    assert (last.epochs, last.schedule, last.lr) == (20, "constant", [3e-5] if squad else [1e-5, 2e-5, 3e-5])


@cases
def test_figures(task: str, place: int, size: int) -> None:
    text = " ".join(line.strip() for line in header(f"paper/{task}-cofi-{size}"))
    score, sparsity, speed = PUBLISHED[task][place]
    assert f"{score} with {sparsity}% of the layers' parameters gone, at {speed} times the speed" in text
    assert "the published figures, not ours" in text
    with (files("trainflat") / "report/reference/structured_95.csv").open(encoding="utf8") as file:
        rows: dict[str, dict[str, Any]] = {r["teacher_optimizer"]: r for r in csv.DictReader(file) if r["task"] == task}
    for optimizer in rows if size == 95 else ():
        assert f"{rows[optimizer]['pruned_accuracy']} ± {rows[optimizer]['pruned_std']} with" in text


def test_the_recipes_of_one_task_differ_in_the_target_alone() -> None:
    for task in PUBLISHED:
        one, other = (load_recipe(f"paper/{task}-cofi-{size}").resolved() for size in (60, 95))
        for recipe in (one, other):
            del recipe["name"], recipe["protocol"]["method"]["target_sparsity"]
        assert one == other
