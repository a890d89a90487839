"""What docs/optimizers.md says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from trainflat.optim import OPTIMIZERS
from trainflat.optim.options import base_class
from trainflat.recipe import load_recipe

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "optimizers.md").read_text(encoding="utf8")
ROWS = {
    name: [cell.strip() for cell in line.split("|")[1:-1]]
    for line in GUIDE.splitlines()
    if line.startswith("| `")
    for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
}
SHARED = {"params", "base_optimizer", "base_options", "exclude"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_there_with_its_passes_and_defaults(name: str) -> None:
    passes, options = ROWS[name][2], ROWS[name][3]
    assert float(passes) == pytest.approx(OPTIMIZERS.read({"name": name}).average_passes, abs=0.005)
    if name in ("adam", "adamw"):
        return
    said = {key: value.strip() for key, value in re.findall(r"`(\w+)` ([^,]+)", options)}
    defaults = {key: p.default for key, p in OPTIMIZERS.options(name).items() if key not in SHARED}
    assert said.keys() == defaults.keys()
    for key, default in defaults.items():
        parts = [yaml.safe_load(part) for part in said[key].split()]
        assert [_number(part) for part in parts] == list(default if isinstance(default, tuple) else [default]), key


def _number(value: Any) -> Any:
    try:
        return float(value) if not isinstance(value, bool) else value
    except ValueError:
        return value


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("adam", "adamw")])
@pytest.mark.parametrize("base", ["adam", "adamw", "sgd", "nadam"])
def test_what_is_not_given_is_what_the_base_alone_would_have(name: str, base: str) -> None:
    """So that SAM and AdamW without further words differ in the method, and in nothing else."""
    given = {"base": base, "lr": 1e-3} | ({"momentum": 0.9} if base == "sgd" else {})
    made = OPTIMIZERS.make(name, [torch.nn.Parameter(torch.ones(2))], **given)
    own = {key: value for key, value in given.items() if key != "base"}
    alone = base_class(base)([torch.nn.Parameter(torch.ones(2))], **own)
    assert {key: made.defaults[key] for key in alone.defaults} == alone.defaults


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("adam", "adamw")])
def test_a_recipe_resolves_the_base_alike(name: str) -> None:
    for base in ("adam", "adamw"):
        full, alone = OPTIMIZERS.read({"name": name, "base": base}).dump(), OPTIMIZERS.read(base).dump()
        assert {key: full[key] for key in alone} == alone


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE):
        exec(block, names)  # noqa: S102
    assert names["passes"] == 12
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    assert load_recipe(yaml.safe_load(recipe)).name == "reviews"
