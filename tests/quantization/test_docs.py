"""What docs/int8.md shows is tried, and its table is the code's."""

import csv
import inspect
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers

import trainflat.quantization
from tests.support.recipes import header
from trainflat.quantization import QUANTIZERS, Int8Linear, quantize_dynamic
from trainflat.recipe import load_recipe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "int8.md").read_text(encoding="utf8")


def test_the_example_runs(capsys):
    block, _ = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    transformers.utils.logging.disable_progress_bar()
    try:
        exec(block, {})  # noqa: S102
    finally:
        transformers.utils.logging.enable_progress_bar()
    deviation, same = capsys.readouterr().out.splitlines()
    assert "tensor(" in deviation
    assert same == "True"


def test_the_table_is_complete():
    first, second = PAGE.split("| option of `q8bert` |")
    stated = dict(re.findall(r"^\| `(\w+)` \| (\S*) ?\|", first, flags=re.MULTILINE))
    trained = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", second, flags=re.MULTILINE))
    assert trained == {name: str(p.default).lower() for name, p in QUANTIZERS.options("q8bert").items()}
    options = inspect.signature(quantize_dynamic).parameters.values()
    defaults = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    assert stated == {name: str(default).lower() if default != () else "" for name, default in defaults.items()}


def test_names_and_shares_are_right():
    for name in ("has_integer_kernel", "without_integer_kernel", "quantize_dynamic"):
        assert name in PAGE
        assert name in trainflat.quantization.__all__
    fixed = set(Int8Linear(2, 2, activations="static").state_dict())
    assert fixed == {*quantize_dynamic(torch.nn.Linear(2, 2)).state_dict(), "input_scale"}
    assert fixed == set(re.findall(r"`NAME\.(\w+)`", PAGE))
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig())
    for kinds, share in (((torch.nn.Linear,), 0.41), ((torch.nn.Linear, torch.nn.Embedding), 0.25)):
        matrices = [m.weight for m in model.bert.modules() if type(m) in kinds]
        floats = sum(p.numel() for p in model.parameters()) * 4
        int8 = floats - sum(w.numel() * 3 - w.shape[0] * 4 for w in matrices)
        assert round(int8 / floats, 2) == share
        assert f"{share} " in PAGE


def test_the_loop_runs():
    _, block = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    x = torch.randn(4, 8)
    torch.testing.assert_close(names["small"](x), names["model"](x), rtol=0, atol=0.1)
    assert type(names["model"][0]) is torch.nn.Linear


def test_the_papers_recipe_is_the_papers():
    """Method and decay of Q8BERT, the rest of the dense model that it is compared with; figures of table 8."""
    recipe, beside = (load_recipe(f"paper/stsb-{kind}").training for kind in ("q8bert", "imp"))
    assert recipe.quantization.section() == {"name": "q8bert"} | {
        k: p.default for k, p in QUANTIZERS.options("q8bert").items()
    }
    own = {"optimizer", "quantization"}
    assert recipe.model_dump(exclude=own) == beside.model_dump(exclude=own)
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adam", 2e-5)
    with (files("trainflat") / "report/reference/quantized_int8.csv").open(encoding="utf8") as file:
        adam, sam = [row for row in csv.DictReader(file) if row["task"] == "stsb"]
    text = " ".join(line.strip() for line in header("paper/stsb-q8bert"))
    assert f"in int8 {adam['qat_reference']} with quantization-aware" in text
    for row, name in ((adam, "Adam"), (sam, "SAM")):
        assert f"{row['int8_mean']} ± {row['int8_std']} with {name}" in text
