"""What docs/gates.md says is so."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import tiny_bert
from trainflat.pruning.gates import GATES
from trainflat.recipe import load_recipe

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "gates.md").read_text(encoding="utf8")


def test_the_table_is_the_codes() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| .*? \| (?:no|yes) \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(GATES)
    for name, options in rows:
        said = {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+)` ([^,]+)", options)}
        known = {key: p.default for key, p in GATES.options(name).items() if key != "schedule"}
        assert said == known
        assert GATES.read(name).dump().keys() == known.keys() | {"schedule"}


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        exec(code, names)  # noqa: S102
    gate = names["drop_units"](tiny_bert(), 0.5)
    gate.begin(20)
    assert {key.rstrip(" 0123456789") for key in gate.scores} == {"head", "feed-forward unit"}
    assert names["masks"].zeros == names["zeros"] == 48
    assert names["smaller"].config.per_layer_config == {"0": {"num_attention_heads": 1, "intermediate_size": 8}}
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert load_recipe(yaml.safe_load(recipe)).protocol.gate.perturb == "both"
