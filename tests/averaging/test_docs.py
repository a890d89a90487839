"""What docs/averaging.md says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainflat.averaging import AVERAGING
from trainflat.recipe import load_recipe, packaged_recipes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "averaging.md").read_text(encoding="utf8")


def test_the_table_is_the_codes() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| .*? \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(AVERAGING)
    for name, options in rows:
        said = {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+)` ([^,]+)", options)}
        assert said == {key: parameter.default for key, parameter in AVERAGING.options(name).items()}


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    exec(code, names)  # noqa: S102
    assert names["swa"].models == 3
    assert names["average_loss"] == pytest.approx(names["model"](names["inputs"]).square().mean().item())
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    averaging = load_recipe(yaml.safe_load(recipe)).training.averaging
    assert averaging == load_recipe({**yaml.safe_load(recipe), "training": {"averaging": "swa"}}).training.averaging


def test_the_recipes_that_it_names_are_there() -> None:
    assert "`paper/TASK-swa-imp`" in PAGE
    assert sum(name.endswith("-swa-imp") for name in packaged_recipes()) == 8
