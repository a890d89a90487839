"""What docs/recipes.md says of pruners is so."""

import re
from pathlib import Path

import yaml

from trainflat.pruning import PRUNERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf8")


def test_the_table_of_pruners_is_the_codes() -> None:
    section = PAGE.partition("### `protocol.pruner`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| (.*?) ?\|$", section, flags=re.MULTILINE)
    assert [name for name, _ in rows[1:]] == list(PRUNERS)  # the first is the head of the table
    for name, options in rows[1:]:
        said = {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+)` ([^,]+)", options)}
        assert said == {key: parameter.default for key, parameter in PRUNERS.options(name).items()}
