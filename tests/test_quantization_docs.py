"""What docs/int8.md shows is tried, and its table is the code's."""

import inspect
import re
from pathlib import Path

import torch
import transformers

import trainflat.quantization
from trainflat.quantization import quantize_dynamic

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "int8.md").read_text(encoding="utf8")


def test_the_example_runs(capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    transformers.utils.logging.disable_progress_bar()
    try:
        exec(block, {})  # noqa: S102
    finally:
        transformers.utils.logging.enable_progress_bar()
    deviation, same = capsys.readouterr().out.splitlines()
    assert "tensor(" in deviation
    assert same == "True"


def test_the_table_is_complete():
    stated = dict(re.findall(r"^\| `(\w+)` \| (\S*) ?\|", PAGE, flags=re.MULTILINE))
    options = inspect.signature(quantize_dynamic).parameters.values()
    defaults = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    assert stated == {name: str(default).lower() if default != () else "" for name, default in defaults.items()}


def test_names_and_shares_are_right():
    for name in ("has_integer_kernel", "without_integer_kernel", "quantize_dynamic"):
        assert name in PAGE
        assert name in trainflat.quantization.__all__
    assert set(quantize_dynamic(torch.nn.Linear(2, 2)).state_dict()) == set(re.findall(r"`NAME\.(\w+)`", PAGE))
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig())
    for kinds, share in (((torch.nn.Linear,), 0.41), ((torch.nn.Linear, torch.nn.Embedding), 0.25)):
        matrices = [m.weight for m in model.bert.modules() if type(m) in kinds]
        floats = sum(p.numel() for p in model.parameters()) * 4
        int8 = floats - sum(w.numel() * 3 - w.shape[0] * 4 for w in matrices)
        assert round(int8 / floats, 2) == share
        assert f"{share} " in PAGE
