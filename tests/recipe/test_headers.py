"""What the headers of packaged recipes say in words and numbers is what the recipes resolve to."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from experiments.prune import chosen
from tests.support.recipes import header
from trainflat.pruning.gates import final_sparsity
from trainflat.recipe import Recipe, load_recipe, packaged_recipes
from trainflat.records.run import Record
from trainflat.tasks import TASKS
from trainflat.tasks.squad import SOURCE

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(packaged_recipes())
WINDOWS = 88_524 / 87_599  # of SQuAD's training split per question: BERT's tokenizer, 384 tokens, 128 of them shared
TRAININGS = re.compile(
    r"(\d+) trainings? of (about )?(\d+) steps, (one|two) pass(?:es)? each(?:: (?:about )?(\d+) passes)?,? "
    r"over batches of (\d+) ×"
)

STAGES = re.compile(r"(?:Time: an estimate[^:]*:|,) (?:about )?(dense|pruned|finetuned) (\d+) steps")
PASSES = re.compile(r"(one|two) pass(?:es)? each: (?:about )?(\d+) passes over batches of (\d+) ×")


def text_of(name: str) -> str:
    return " ".join(line.strip() for line in header(name))


def rows_of(recipe: Recipe) -> int:
    """Official rows, or windows of them."""
    squad = recipe.task.name == "squad"
    rows = recipe.task.rows or (SOURCE if squad else TASKS[recipe.task.name].spec).sizes["train"]
    return round(rows * (WINDOWS if squad else 1))


def steps_of(recipe: Recipe) -> int:
    """Of one training."""
    return math.ceil(math.ceil(rows_of(recipe) / recipe.training.batch_size) * recipe.training.epochs)


def learns_structure(name: str) -> bool:
    return "method" in load_recipe(name).protocol.options


@pytest.mark.parametrize("name", [name for name in NAMES if learns_structure(name)])
def test_steps_of_stages_that_are_trained_each_in_its_own_way(name: str):
    recipe, text = load_recipe(name), text_of(name)
    plan, training = recipe.protocol.build().plan(), recipe.training
    expected = {stage.name: stage.phase.steps(training, rows_of(recipe)) for stage in plan}
    assert {stage: int(steps) for stage, steps in STAGES.findall(text)} == expected
    [(passes, total, batch)] = PASSES.findall(text)
    per_step = {"one": 1, "two": 2}[passes]
    assert (per_step, int(batch)) == (training.optimizer.average_passes, training.batch_size)
    assert int(total) == per_step * sum(expected.values())


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("demo") and not learns_structure(name)])
def test_steps_passes_and_batches(name: str):
    recipe = load_recipe(name)
    [found] = TRAININGS.findall(text_of(name))
    trainings, about, steps, passes, total, batch = found
    per_step = recipe.training.optimizer.average_passes
    assert int(trainings) == 1 + len(recipe.protocol.options.get("sparsities", []))
    assert int(steps) == pytest.approx(steps_of(recipe), rel=1e-2 if about and recipe.task.rows else 0)
    assert {"one": 1, "two": 2}[passes] == per_step
    assert not total or int(total) == int(trainings) * int(steps) * per_step
    assert int(batch) == recipe.training.batch_size


# In the header's words, where it has them: the recipe has that.
SAID: dict[str, Any] = {
    r"\bSAM, iterative": lambda r: r.training.optimizer.name == "sam" and r.training.averaging is None,
    r"\bSWA, iterative": lambda r: r.training.averaging.name == "swa",
    r"pruning with rewinding \(IMP\)\.": lambda r: r.protocol.rewind == 0,
    r"pruning without rewinding\.": lambda r: r.protocol.rewind == "none",
    r"epochs 6 to 10": lambda r: (r.training.epochs, r.training.averaging.every) == (10, 1),
    r"after 2, 2\.5 and 3 epochs": lambda r: (r.training.epochs, r.training.averaging.every) == (3, 0.5),
    r"SWA's learning rate is 8e-5": lambda r: r.training.optimizer.lr == 8e-5,
    r"clipped at norm 1": lambda r: r.training.max_grad_norm == 1,
    r"best epoch (of every round|among those)": lambda r: (
        (r.training.keep, r.training.evaluate_every) == ("best", "epoch")
    ),
    r"\(keep: last\)": lambda r: r.training.keep == "last",
    r"task head is reset": lambda r: r.protocol.head is None and r.protocol.rewind == 0,
    r"task head is kept": lambda r: r.protocol.head is None and r.protocol.rewind == "none",
    r"frozen, as published": lambda r: r.protocol.freeze_embeddings,
    r"chosen anew every 16 steps": lambda r: r.protocol.gate.every == 16,
    r"threshold is refreshed every 16 steps": lambda r: r.protocol.gate.refresh == 16,
    r"selected exactly for every step": lambda r: r.protocol.gate.refresh == 1,
    r"penalty is tuned": lambda r: r.protocol.gate.target_sparsity in (0.75, 0.9) and not r.protocol.gate.penalty,
    r"a quarter of the weights remains": lambda r: final_sparsity(r.protocol.gate) == 0.75,
    r"10% (of the weights )?remain\.": lambda r: final_sparsity(r.protocol.gate) == 0.9,
    r"nearest layers (are )?matched": lambda r: r.training.features()["layerwise"].matching == "nearest",
    r"[Ll]ayers (are )?matched in order": lambda r: r.training.features()["layerwise"].matching == "ordered",
    r"chosen on a tenth of the training rows": lambda r: (
        r.protocol.finetune.several and r.protocol.finetune.held_out == 0.1
    ),
    r"three rates tried": lambda r: len(r.protocol.finetune.lr) == 3,
    r"within 0\.01 of the target": lambda r: r.protocol.method.tolerance == 0.01,
    r"share 128 tokens": lambda r: r.task.doc_stride == 128,
    r"decay 0\.9999": lambda r: r.training.quantization.decay == 0.9999,
    r"\(decay 0\.99\)": lambda r: r.training.quantization.decay == 0.99,
}
NUMBERS: dict[str, Any] = {
    r"(\d+) (?:training )?rows": lambda r: r.task.rows,
    r"(?:first )?(\d+) layers of MiniLM": lambda r: r.model.layers,
    r"scored every (\d+) steps": lambda r: r.training.evaluate_every,
    r"warm-up of (\d+) steps": lambda r: pytest.approx(r.training.warmup * steps_of(r), rel=5e-3),
}


@pytest.mark.parametrize("words", SAID)
def test_words(words: str):
    told = [name for name in NAMES if re.search(words, text_of(name))]
    assert told
    assert [name for name in told if not SAID[words](load_recipe(name))] == []


@pytest.mark.parametrize("words", NUMBERS)
def test_numbers(words: str):
    told = {name: found for name in NAMES if (found := set(re.findall(words, text_of(name))))}
    assert told
    wrong = {n: found for n, found in told.items() if [NUMBERS[words](load_recipe(n))] != [int(x) for x in found]}
    assert wrong == {}


RECORDS = [Record.load(path.parent) for path in (ROOT / "results").glob("*/*/record.json")]


@pytest.mark.parametrize("name", NAMES)
def test_measured_runs_that_are_named_are_there(name: str):
    """Of the same task, kind of protocol and model."""
    recipe, text = load_recipe(name), text_of(name)
    wanted = recipe.task.name, recipe.protocol.name, recipe.model.name
    found = [r for r in RECORDS if (r.task.name, r.protocol, r.model.name) == wanted]
    assert bool(found) or "Measured runs lie under results/" not in text
    assert "No run of it is recorded" not in text or not found


@pytest.mark.parametrize("name", ["demo-adamw", "demo-sam"])
def test_figures_of_the_demo_are_those_of_its_record(name: str):
    [record] = [r for r in RECORDS if r.name == name]
    scores = [f"{record.score(stage):.1f}" for stage in record.stages]
    told = f"{', '.join(scores[:-1])} and {scores[-1]} at 0, 30, 60 and 90% sparsity"
    assert told in text_of(name)


@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_settings_that_a_sweep_chose_are_the_sweeps(task: str):
    recipe, text = load_recipe(f"small/{task}-imp"), text_of(f"small/{task}-imp")
    epochs, best = chosen(ROOT / f"results/sweeps/{task}.json")
    assert {key: getattr(recipe.training.optimizer, key) for key in best["sam"]} == best["sam"]
    assert best["adamw"]["lr"] == best["sam"]["lr"]
    assert ("rho and epochs were chosen" in text) is (recipe.training.epochs == epochs)
    assert recipe.training.epochs == epochs or f"{epochs} epochs scored higher there" in text


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("paper/")])
def test_published_figures_have_the_published_int8_arithmetic_beside_them(name: str):
    int8, trained = load_recipe(name).evaluation.int8, load_recipe(name).training.quantization
    assert trained or (int8.activations, int8.embeddings, int8.head) == ("torch", False, True)
