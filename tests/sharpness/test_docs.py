"""What docs/sharpness.md shows is tried, and its table is the code's."""

import re
from pathlib import Path

import trainflat.sharpness
from trainflat.sharpness import MEASURES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sharpness.md").read_text(encoding="utf8")


def test_the_example_runs(capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    exec(block, {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_table_is_complete():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == set(MEASURES)
    for name, functions, options in rows:
        assert all(function in trainflat.sharpness.__all__ for function in re.findall(r"`(\w+)`", functions))
        stated = dict(re.findall(r"`(\w+)` ([^,]+)", options))
        defaults = {key: parameter.default for key, parameter in MEASURES.options(name).items()}
        assert stated.keys() == defaults.keys()
        for key, words in stated.items():
            default = defaults[key]
            assert words == str(default).lower() or float(words) == default, (name, key)
