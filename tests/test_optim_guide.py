"""What docs/optimizers.md says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainflat.optim import OPTIMIZERS, average_passes
from trainflat.recipe import load_recipe

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "optimizers.md").read_text(encoding="utf8")
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
    assert float(passes) == pytest.approx(average_passes(name, {}), abs=0.005)
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


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE):
        exec(block, names)  # noqa: S102
    assert names["passes"] == 12
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    assert load_recipe(yaml.safe_load(recipe)).name == "reviews"
