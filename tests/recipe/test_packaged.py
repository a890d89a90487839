"""The recipes that come with the package: each loads, can be planned, and says what it costs and what to expect."""

import csv
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import trainflat
from experiments import flatness, movement
from tests.support.recipes import FEW_ROWS, GLUE, RECIPES, header
from trainflat.recipe import load_recipe
from trainflat.tasks import TASKS

ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False}
# See test_averaging_recipes, test_quantization_docs and test_gates_recipes for the others.
PAPERS = [name for name in RECIPES if name.startswith("paper/") and name.split("-", 1)[1] in ("imp", "standard")]
TEXTS = {
    **dict.fromkeys(("cola", "sst2"), ("sentence",)),
    **dict.fromkeys(("mrpc", "rte", "stsb"), ("sentence1", "sentence2")),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
}
DOCS = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
PARTS = ("Shows", "Run", "Data", "Expected", "Time", "Memory")


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made rows of every task, in the columns of the hub."""
    folder = tmp_path_factory.mktemp("data")
    for task, columns in TEXTS.items():
        splits = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        for split, count in (("train", min(20000, TASKS[task].spec.sizes["train"])), *((name, 40) for name in splits)):
            labels = [float(i % 5) if task == "stsb" else i % 2 for i in range(count)]
            texts = [f"words {i}" for i in range(count)]
            write(folder / task, split, {**dict.fromkeys(columns, texts), "label": labels})
    for split, count in (("train", 6500), ("validation", 40)):
        write(
            folder / "squad",
            split,
            {
                "id": [f"{split}{i}" for i in range(count)],
                "title": ["title"] * count,
                "context": ["words here"] * count,
                "question": [f"what {i}?" for i in range(count)],
                "answers": [{"text": ["words"], "answer_start": [0]}] * count,
            },
        )
    return folder


def write(folder: Path, split: str, columns: dict[str, list[Any]]) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def test_every_task_has_its_recipes():
    for task in (*GLUE, "squad"):
        assert {f"paper/{task}-imp", f"paper/{task}-standard", f"small/{task}-imp"} <= RECIPES.keys()
    assert {"demo-adamw", "demo-sam"} <= RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_loads_and_plans_without_training(name: str, made_data: Path, tmp_path: Path):
    plan = trainflat.plan(name, data=made_data, out=tmp_path / "runs")
    assert plan.steps > 0 and list(tmp_path.iterdir()) == []
    if "method" in plan.protocol_options:
        last = ["pruned"] if plan.protocol_options.get("finetune") is None else ["pruned", "finetuned"]
        assert [stage.name for stage in plan.stages][-len(last) :] == last
        return
    block = "pruned" if name.startswith("paper/") else "sparsity-0.75"  # a penalty decides how sparse the former get
    gradual = block if name.endswith("-block") else "sparsity-0.90"
    assert plan.stages[0].name == (gradual if plan.protocol_options["name"] == "gradual" else "dense")
    assert plan.stages[-1].sparsity == 0.9 or name.endswith(("-q8bert", "-block"))


@pytest.mark.parametrize("name", RECIPES)
def test_header_says_what_it_shows_and_costs(name: str):
    lines = header(name)
    assert lines[0].endswith(".") and len(lines[0]) < 100
    found = [line.split(":")[0] for line in lines if re.match(r"[A-Z][a-z]+:", line)]
    assert [part for part in found if part in PARTS] == list(PARTS)
    assert any(f"trainflat run {name}" in line for line in lines) or name.startswith("demo")
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("name", RECIPES)
def test_every_override_that_a_header_shows_is_one(name: str):
    text = re.sub(r"\n\s*", " ", "\n".join(header(name)))
    for quoted, plain in re.findall(r"--set (?:'([^']+)'|([^\s']+[^\s').,;]))", text):
        load_recipe(name, [quoted or plain])


def base_of(optimizer: dict[str, Any]) -> dict[str, Any]:
    """The base optimizer and its options, whichever flat one is around it."""
    name = optimizer.get("base", optimizer["name"])
    return {"name": name, **{key: optimizer[key] for key in ("lr", "weight_decay", *ADAM)}}


COMPARED = [
    (recipe, override)
    for text in (*("\n".join(header(name)) for name in RECIPES), *(p.read_text(encoding="utf8") for p in DOCS))
    for recipe, override in re.findall(r"trainflat run (\S+) .*--set '(training\.optimizer=[^']+)'", text)
]


@pytest.mark.parametrize(("name", "override"), COMPARED)
def test_optimizers_that_are_compared_differ_in_the_method_alone(name: str, override: str):
    one, other = load_recipe(name), load_recipe(name, [override])
    assert one.training.optimizer.name != other.training.optimizer.name
    assert base_of(one.training.optimizer.section()) == base_of(other.training.optimizer.section())


EXPERIMENTS = {
    "flatness": [flatness.recipe("cola", method, 0) for method in flatness.METHODS],
    "movement": [movement.pruning(method, 0.1, 0, "teacher") for method in movement.METHODS],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_of_an_experiment_differ_in_the_method_alone(name: str):
    arms = [load_recipe(arm).resolved() for arm in EXPERIMENTS[name]]
    bases = [base_of(arm["training"].pop("optimizer")) for arm in arms]
    assert bases == bases[:1] * len(arms)
    for arm in arms:
        del arm["name"]
        arm["training"].pop("averaging", None)
        arm["protocol"].pop("gate", None)
    assert arms == arms[:1] * len(arms)


def test_there_are_comparisons():
    assert len(COMPARED) > 30


@pytest.mark.parametrize("name", PAPERS)
def test_papers_protocol(name: str):
    """Na, Mehta and Strubell 2022, section 3 and appendix A."""
    task, kind = name.removeprefix("paper/").split("-")
    recipe = load_recipe(name)
    training, protocol = recipe.training, recipe.protocol
    epochs = 2 if task == "squad" else 10 if task in FEW_ROWS else 3
    lr, batch, length = (3e-5, 16, 384) if task == "squad" else (2e-5, 32, 128)
    assert recipe.model.name == "bert-base-uncased" and recipe.model.layers is None
    assert recipe.task.name == task and recipe.task.train == "train"
    assert recipe.task.rows is None and recipe.task.evaluate in (None, ["validation"])
    assert (training.batch_size, training.max_length, training.epochs) == (batch, length, epochs)
    papers = {"name": "sam", "rho": 0.05, "base": "adam", "lr": lr, "weight_decay": 0.0}
    assert (
        training.optimizer.section() == papers | {"p": 2.0, "exclude": [], "every": 1, "start": 0.0, "stop": 1.0} | ADAM
    )
    assert (training.schedule, training.warmup, training.batching) == ("linear", 0.0, "random")
    assert (training.evaluate_every, training.keep) == ("epoch", "best")
    assert protocol.name == "iterative" and protocol.rewind == (0 if kind == "imp" else "none")
    assert [*protocol.sparsities] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert (protocol.build().pruner.name, protocol.scope) == ("magnitude", "global")


@pytest.mark.parametrize("name", PAPERS)
def test_expected_figures_are_those_of_the_table(name: str):
    task, kind = name.removeprefix("paper/").split("-")
    with (files("trainflat") / "report/reference/glue_squad_bert_base.csv").open(encoding="utf8") as file:
        rows: list[dict[str, Any]] = [r for r in csv.DictReader(file) if r["task"] == task and r["split"] == "dev"]
    text = " ".join(line.strip() for line in header(name))
    for optimizer in ("adam", "sam", "reference"):
        [row] = [r for r in rows if (r["setting"], r["optimizer"], r["source"][-6:]) == (kind, optimizer, "table5")]
        assert row["mean"] + (f" ± {row['std']}" if row["std"] else "") in text
        assert f"at {row['sparsity_percent']}% sparsity" in text
    assert "the paper's figures, not ours" in text


def test_demo_differs_only_in_its_optimizer():
    one, other = (load_recipe(n).resolved() for n in ("demo-adamw", "demo-sam"))
    for value in (one, other):
        del value["name"], value["training"]["optimizer"]
    assert one == other
    assert one["task"]["holdout"] == 0 and one["model"]["name"] == "minilm"


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("small/")])
def test_small_recipes_never_take_partial_splits_on_their_own(name: str):
    task = load_recipe(name).task
    assert "partial" not in str(task.train) + str(task.options.get("evaluate")) and task.holdout == 0
