"""Every format holds a shrunk model, with a layer of biases only and one that skips its attention."""

from pathlib import Path
from typing import Any

import pytest
import torch

import trainflat
from tests.support.families import write
from tests.support.fresh import run_fresh
from tests.support.shrunk import ALL, answers, ragged
from trainflat.commands.export import export
from trainflat.export import EXPORTERS
from trainflat.quantization import Int8Module

QUICK = ("int8", "sparse")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in EXPORTERS if name not in QUICK]


def certain(family: str = "Bert") -> Any:
    """Classes that no rounding swaps."""
    model = ragged(family)
    with torch.no_grad():
        list(model.classifier.parameters())[-1][0] += 9
    return model


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_every_format_agrees(name: str, tmp_path: Path) -> None:
    found = export(write(tmp_path / "model", certain()), name, tmp_path / "out")
    assert found.agreement >= 0.9
    assert "int8" in name or found.difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino", "int8", "sparse"])
@pytest.mark.parametrize("family", ALL)
def test_every_family_agrees(family: str, name: str, tmp_path: Path) -> None:
    found = export(write(tmp_path / "model", certain(family)), name, tmp_path / "out")
    assert found.agreement >= 0.9


def test_int8_and_sparse_folders_are_read_again(tmp_path: Path) -> None:
    model = certain()
    folder = write(tmp_path / "model", model)
    export(folder, "sparse", tmp_path / "sparse")
    export(folder, "int8", tmp_path / "int8")
    assert torch.equal(answers(trainflat.load(tmp_path / "sparse")), answers(model))
    small = trainflat.load(tmp_path / "int8")
    assert any(isinstance(module, Int8Module) for module in small.modules())
    for one in (tmp_path / "sparse", tmp_path / "int8"):
        again = type(model).from_pretrained(one).eval()
        assert torch.equal(answers(again), answers(trainflat.load(one)))


@pytest.mark.long
def test_neither_is_filled_at_random_by_the_code_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", certain())
    for name in QUICK:
        export(folder, name, tmp_path / name)
    code = """
import sys, transformers as t, transformers.dynamic_module_utils as d
d.HF_MODULES_CACHE = sys.argv[1]
for folder in sys.argv[2:]:
    try:
        t.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    except Exception:
        continue
    sys.exit(f"{folder} was loaded")
"""
    done = run_fresh(tmp_path / "modules", tmp_path / "int8", tmp_path / "sparse", code=code)
    assert done.returncode == 0, done.stderr
