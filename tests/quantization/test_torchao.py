"""torchao as a backend, by a stand-in: with the library itself installed, importing transformers prints warnings."""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import tiny_bert
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError, UnknownName
from trainflat.quantization import Int8Linear, quantize_dynamic, quantize_rows


class Rounded(nn.Parameter):
    """Stands for torchao's tensors."""


def quantize_(model: nn.Module, config: object, filter_fn: Callable[[nn.Module, str], bool]) -> None:
    assert config == "dynamic int8"
    for name, module in model.named_modules():
        if filter_fn(module, name):
            integers, step, _ = quantize_rows(module.get_parameter("weight").detach())
            module.weight = Rounded(integers * step, requires_grad=False)


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = ModuleType("torchao.quantization")
    library.quantize_, library.Int8DynamicActivationInt8WeightConfig = quantize_, lambda: "dynamic int8"
    monkeypatch.setattr(Rounded, "__module__", "torchao.quantization")
    monkeypatch.setitem(sys.modules, "torchao.quantization", library)
    honest = importlib.util.find_spec
    monkeypatch.setattr(
        "trainflat.quantization.dynamic.find_spec", lambda name: name if name == "torchao" else honest(name)
    )


def rounded(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if isinstance(parameter, Rounded)}


@pytest.mark.usefixtures("torchao")
def test_it_rounds_the_layers_that_our_own_backend_would() -> None:
    model = tiny_bert().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for options in ({}, {"head": True}, {"exclude": ["*.pooler.dense", "bert.encoder.layer.1.*"]}):
        ours = quantize_dynamic(model, **options)
        theirs = quantize_dynamic(model, backend="torchao", **options)
        places = {f"{name}.weight": m for name, m in ours.named_modules() if isinstance(m, Int8Linear)}
        assert rounded(theirs) == set(places) and type(theirs) is type(model) and not theirs.training
        assert all(torch.equal(theirs.get_parameter(name), m.weight) for name, m in places.items())
    assert model.training and set(places) < set(prunable(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="quantized already"):
        quantize_dynamic(theirs)


def test_what_is_missing_is_named() -> None:
    if importlib.util.find_spec("torchao") is None:
        with pytest.raises(InputError, match=r"needs torchao. Install: pip install 'trainflat\[torchao\]'"):
            quantize_dynamic(nn.Linear(2, 2), backend="torchao")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"embeddings": True}, "does not take embeddings=True"), ({"activations": "batch"}, "take activations='batch'")],
)
def test_options_that_it_has_not_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize_dynamic(tiny_bert(), backend="torchao", **options)


def test_an_unknown_backend() -> None:
    with pytest.raises(UnknownName, match=r"no int8 backend is called 'torchoa'\. Did you mean 'torchao'"):
        quantize_dynamic(nn.Linear(2, 2), backend="torchoa")  # type: ignore[arg-type]
