"""What README.md and docs/recipes.md show is tried."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import tiny_bert
from trainflat.protocols import PROTOCOLS
from trainflat.recipe import (
    EvaluationOptions,
    FlatnessOptions,
    LatencyOptions,
    ModelOptions,
    Recipe,
    load_recipe,
)
from trainflat.tasks import TASKS
from trainflat.training import TrainingOptions

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
GUIDE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf8")


def blocks(text: str, language: str) -> Iterator[str]:
    return iter(re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.filterwarnings("ignore:'pin_memory'")  # what the Trainer's default is without a GPU
def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm_tokenizer: Any):
    from transformers import DataCollatorWithPadding

    monkeypatch.chdir(tmp_path)
    lines = [f"{'a fine' if i % 2 else 'a poor'} book number {i},{5 if i % 2 else 1}" for i in range(64)]
    (tmp_path / "reviews.csv").write_text("review,stars\n" + "\n".join(lines), encoding="utf8")
    rows = [{"input_ids": [2, 5 + i % 100, 3], "attention_mask": [1, 1, 1], "labels": i % 2} for i in range(64)]
    names: dict[str, Any] = {"encoder": tiny_bert(), "rows": rows}
    names["collator"] = DataCollatorWithPadding(minilm_tokenizer)
    torch.manual_seed(0)
    for block in blocks(README, "python"):
        exec(block, names)  # noqa: S102
    assert [stage.name for stage in names["record"].stages] == ["dense", "sparsity-0.50"]
    assert names["masks"].sparsity == pytest.approx(0.9, abs=0.01)
    assert names["trainer"].passes.count == 2 * names["trainer"].state.global_step == 4


@pytest.mark.parametrize("text", [*blocks(README, "yaml"), *blocks(GUIDE, "yaml")])
def test_recipes_in_the_docs_load(text: str):
    assert load_recipe(yaml.safe_load(text)).name == "reviews"


def test_overrides_in_the_docs_are_some():
    base = {"task": "cola", "model": "minilm", "training": {"optimizer": "sam"}, "protocol": "iterative"}
    seen = 0
    for line in (README + GUIDE).splitlines():
        given = [quoted or plain for quoted, plain in re.findall(r"--set (?:'([^']+)'|([a-z_.]+=[^\s`]+))", line)]
        name = re.search(r"--task ([a-z]\S+)", line)
        load_recipe(base, [*([f"task={name[1]}"] if name else []), *given])
        seen += len(given)
    assert seen  # or the pattern fits nothing


def test_every_key_is_explained():
    sections: list[Any] = [Recipe, ModelOptions, TrainingOptions, EvaluationOptions]
    keys = {key for section in sections for key in section.model_fields}
    keys |= {f"latency.{key}" for key in LatencyOptions.model_fields}
    keys |= {f"flatness.{key}" for key in FlatnessOptions.model_fields}
    keys |= {key for registry in (TASKS, PROTOCOLS) for name in registry for key in registry.options(name)}
    explained = set(re.findall(r"`([a-z0-9_.]+)`", GUIDE))
    assert keys - explained - {"latency"} == set()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")):
        assert target.startswith("https://") or (ROOT / target).exists(), target
