"""What README.md and docs/recipes.md show is tried."""

import re
from pathlib import Path
from typing import Any

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

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf8")
GUIDE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf8")


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
